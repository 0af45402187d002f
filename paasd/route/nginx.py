"""The Nginx process of one edge: its main configuration, test, start, reload and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import re
import signal
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from paasd.config import HttpConfig
from paasd.errors import EdgeError
from paasd.route import nginx_program, processes
from paasd.route.files import read_text
from paasd.route.nginx_config import Layout, NginxConfig
from paasd.route.sites import tls_addresses

_log = logging.getLogger(__name__)

_QUIT_TIMEOUT = 5.0
_MAX_LOG = 16 * 1024**2
_UNSAFE_IN_PATH = re.compile(r"[^\w./@+:,=-]")


class Nginx:
    """Nginx daemonizes and outlives us: it is found again by its pid file or its command line."""

    def __init__(self, directory: Path, templates: Path, http: HttpConfig, user: str | None) -> None:
        for path in (directory, templates):
            if _UNSAFE_IN_PATH.search(str(path)):
                raise EdgeError(f"the path {str(path)!r} has characters that an Nginx configuration cannot hold")
        self.layout = Layout(directory)
        self._http = http
        self._user = user if os.geteuid() == 0 else None
        self._config = NginxConfig(self.layout, templates, http, self._user)

    def create_directories(self) -> None:
        """Workers of another user pass through ours to their temporary files; the control socket's is closed to them,
        because Nginx makes every Unix socket writable for all."""
        directory = self.layout.directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o711)
        for name, mode in (
            ("tmp", 0o711),
            ("logs", 0o700),
            ("control", 0o700),
            ("test", 0o700),
            ("tls", 0o700),
            ("cache", 0o711),
        ):
            (directory / name).mkdir(exist_ok=True)
            (directory / name).chmod(mode)
        if os.geteuid() == 0:
            self._let_workers_through()

    def _let_workers_through(self) -> None:
        """Workers keep bodies over 64 KiB in files, so they have to pass, not read, every directory above."""
        data = self.layout.directory.parent
        if data.stat().st_uid == 0:
            data.chmod(stat.S_IMODE(data.stat().st_mode) | 0o011)
        if closed := [str(path) for path in self.layout.directory.parents if not path.stat().st_mode & 0o001]:
            _log.warning(
                "Nginx's workers cannot pass %s, so big uploads will fail; chmod o+x it", " and ".join(reversed(closed))
            )

    async def worker_uid(self) -> int | None:
        """The user of its workers, if that is not ours."""
        if os.geteuid() != 0:
            return None
        name = self._user or await nginx_program.compiled("user") or "nobody"
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            _log.warning("there is no user %s for Nginx's workers, so they cannot write access logs", name)
            return None

    async def write_config(self, include: Sequence[str]) -> None:
        """Write the main configuration, which reads the files `include`."""
        await self._config.write(include)

    async def test(self, include: Sequence[str]) -> str | None:
        """Let Nginx check a main configuration that reads only `include`. The reason if it refuses."""
        path = await self._config.write_test(include)
        status, output = await nginx_program.run(self._arguments(path, "stderr", "-t", "-q"))
        return None if status == 0 else _reason(output)

    async def start(self) -> None:
        """Start Nginx with the configuration on disk. Workers that a killed master left behind are retired first."""
        await self._retire_orphans()
        await self._check_port()
        self.layout.control.unlink(missing_ok=True)
        status, output = await nginx_program.run(self._arguments(self.layout.config, str(self.layout.error_log)))
        if status != 0:
            raise EdgeError(f"Nginx does not start: {_reason(output)}")

    def master(self) -> psutil.Process | None:
        return processes.master(self.layout.pid_file, self.layout.config)

    def reload(self) -> None:
        process = self.master()
        if process is None:
            raise EdgeError("Nginx is not running, so it cannot be reloaded")
        process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        process = await asyncio.to_thread(self.master)
        if process is not None:
            family = [process, *await asyncio.to_thread(processes.workers, process)]
            await _end(family, process)
        await _end(await asyncio.to_thread(processes.orphans, self.layout.error_log))
        for path in (self.layout.control, self.layout.pid_file):
            path.unlink(missing_ok=True)

    def protect_control(self) -> None:
        """The socket's directory is private already; this is the second lock."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            self.layout.control.chmod(0o600)

    def rotate_log(self) -> None:
        """Keep the error log and one before it. The log is only for the edge's own trouble, but apps can cause much."""
        with contextlib.suppress(FileNotFoundError):
            if self.layout.error_log.stat().st_size > _MAX_LOG and (process := self.master()):
                self.layout.error_log.rename(self.layout.error_log.with_suffix(".log.1"))
                process.send_signal(signal.SIGUSR1)

    def last_errors(self) -> str:
        lines = (read_text(self.layout.error_log) or "").splitlines()
        return _reason("\n".join(line for line in lines[-50:] if "[emerg]" in line)) if lines else ""

    def _arguments(self, config: Path, error_log: str, *more: str) -> list[str]:
        return [nginx_program.binary(), "-p", str(self.layout.directory), "-e", error_log, "-c", str(config), *more]

    async def _retire_orphans(self) -> None:
        await asyncio.to_thread(lambda: processes.signal_all(processes.orphans(self.layout.error_log), signal.SIGQUIT))

    async def _check_port(self) -> None:
        """Orphans that were told to quit need a moment to let go of the port."""
        https_port = self._http.https_port if tls_addresses(self._http) else 0
        for port, setting in ((self._http.port, "http.port"), (https_port, "http.https_port")):
            for _ in range(40 if port else 0):
                holder = await asyncio.to_thread(processes.port_holder, self._http.address, port)
                if holder is None or not holder.startswith(("nginx ", processes.UNSEEN)):
                    break
                await asyncio.sleep(0.05)
            if port and holder is not None:
                raise EdgeError(
                    f"port {port} on {self._http.address} is taken by {holder}",
                    hint=f"Stop that process, or give the edge another port with {setting}.",
                )


async def _end(family: list[psutil.Process], master: psutil.Process | None = None) -> None:
    """SIGQUIT lets requests finish; then SIGTERM, then SIGKILL."""
    for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
        targets = [master] if master and number != signal.SIGKILL else family
        await asyncio.to_thread(processes.signal_all, targets, number)
        deadline = time.monotonic() + _QUIT_TIMEOUT
        while time.monotonic() < deadline:
            family = await asyncio.to_thread(processes.living, family)
            if not family:
                return
            await asyncio.sleep(0.01)
    raise EdgeError(f"Nginx (pid {family[0].pid}) does not end, not even after SIGKILL")


def _reason(output: str) -> str:
    """What a person needs of Nginx's messages."""
    lines = [re.sub(r"^.*?\[(emerg|alert|error)\] (\d+#\d+: )?", "", line) for line in output.splitlines()]
    return "; ".join(line for line in lines if line)[-1000:] or "it gave no reason"
