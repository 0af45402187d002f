"""Finds Nginx's processes and whoever holds a port. Everything is asked from the kernel; nothing is remembered."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

_log = logging.getLogger(__name__)

UNSEEN = "a process that cannot be seen from here"


def master(pid_file: Path, config: Path) -> psutil.Process | None:
    """The running Nginx of `config`. Found by its command line if the pid file is missing or has somebody else's."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        if _is_master(process, config):
            return process
    except (OSError, ValueError, psutil.Error):
        pass
    return next((process for process in _named_nginx() if _is_master(process, config)), None)


def workers(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []


def orphans(error_log: Path) -> list[psutil.Process]:
    """Workers, and who keeps the cache small, whose master was killed: they know their edge only by its open log.
    Workers still accept connections."""
    found = []
    for process in _named_nginx():
        try:
            parent = process.parent()
            if parent is not None and parent.name() == "nginx":
                continue
            worker = any(line.startswith(("nginx: worker", "nginx: cache")) for line in process.cmdline())
            if worker and any(file.path == str(error_log) for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def alive(process: psutil.Process) -> bool:
    """False for a zombie too: Nginx's are init's children, which takes its time."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def living(family: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in family if alive(process)]


def signal_all(family: Iterable[psutil.Process], number: int) -> None:
    """Those that ended meanwhile are passed over."""
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def port_holder(address: str, port: int) -> str | None:
    """Who listens on a port we cannot have, as `nginx (pid 12)`; None if nobody does."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return _listener(port) if error.errno == errno.EADDRINUSE else None
    return None


@functools.lru_cache(maxsize=64)
def may_listen(address: str, port: int) -> bool:
    """False for a port that needs rights we do not have, or that another program than an Nginx holds. Found once, so
    that all who ask agree, until the daemon's next start."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except PermissionError:
            _log.warning("no right to listen on port %s, so nothing is served over HTTPS", port)
            return False
        except OSError as error:
            holder = _listener(port) if error.errno == errno.EADDRINUSE else UNSEEN
            if holder == UNSEEN or holder.startswith("nginx "):
                return True  # ours, most likely, from before
            _log.warning("port %s is taken by %s, so nothing is served over HTTPS until a restart", port, holder)
            return False
    return True


def _listener(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listening and listening.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return UNSEEN


def _named_nginx() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.name() == "nginx":
                yield process
        except psutil.Error:
            continue


def _is_master(process: psutil.Process, config: Path) -> bool:
    try:
        title = " ".join(process.cmdline())
        return alive(process) and title.startswith("nginx: master process") and f" -c {config} " in f"{title} "
    except psutil.Error:
        return False
