"""Ports, firewall and names."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess

import psutil

from paasd.capabilities import has_network_admin
from paasd.config import Config
from paasd.doctor.finding import Finding, fail, ok, warn
from paasd.pid_file import PidFile
from paasd.route import processes
from paasd.run.firewall import chain_names

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_CAPABILITY = "Start the daemon as install.sh does: as root, or with the capability CAP_NET_ADMIN."


async def check(config: Config) -> list[Finding]:
    names = _names(config.http.domain)
    ports, firewall, resolved = await asyncio.gather(
        asyncio.to_thread(_ports, config), asyncio.to_thread(_firewall, config), names
    )
    return [*ports, firewall, resolved]


def _ports(config: Config) -> list[Finding]:
    daemon = PidFile(config.run_dir).running()
    master = processes.master(config.edge_dir / "nginx.pid", config.edge_dir / "nginx.conf")
    edge, http = _family(master.pid if master else None), config.http
    https = [_port("https port", "http.https_port", http.https_port, edge, bool(master))] if http.https_port else []
    return [
        _port("http port", "http.port", http.port, edge, bool(master)),
        *https,
        _port("ssh port", "ssh.port", config.ssh.port, _family(daemon), bool(daemon)),
    ]


def _port(check_name: str, setting: str, port: int, ours: set[int], expected: bool) -> Finding:
    listeners = _listeners(port)
    if listeners is None:
        return warn(check_name, f"who listens on {port} cannot be seen", "Run it as root: sudo paasd doctor")
    strangers = [pid for pid in listeners if pid not in ours]
    if strangers:
        mend = f"Stop that process, or choose another port: {setting} in paasd.toml."
        return fail(check_name, f"{port} is taken by {_named(strangers[0])}", mend)
    if listeners:
        return ok(check_name, f"{port} is served by {_named(min(listeners))}")
    if expected:
        return fail(check_name, f"nothing listens on {port}", "Restart the daemon and look at its log.")
    return ok(check_name, f"{port} is free")


def _listeners(port: int) -> set[int] | None:
    """Processes that listen on the port; None when some process cannot be seen from here."""
    found = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
    ]
    return None if None in found else {pid for pid in found if pid is not None}


def _family(pid: int | None) -> set[int]:
    """A process and all below it: Nginx's workers, the daemon's sshd."""
    if pid is None:
        return set()
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.Error:
        return {pid}


def _named(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"


def _firewall(config: Config) -> Finding:
    if not config.run.firewall:
        return ok("firewall", "switched off (run.firewall = false)")
    save = shutil.which("iptables-save", path=_PATH)
    if save is None:
        return warn(
            "firewall", "iptables is not installed, so apps and builds can reach the host", "apt-get install iptables"
        )
    daemon = PidFile(config.run_dir).running()
    if daemon is not None and not has_network_admin(daemon):
        return warn(
            "firewall", "the daemon may not set rules, so apps and builds can reach the host's services", _CAPABILITY
        )
    if os.geteuid() != 0:
        return warn("firewall", "its rules can be seen by root only", "Run it as root: sudo paasd doctor")
    done = subprocess.run([save, "-t", "filter"], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        reason = (done.stderr.splitlines() or ["no reason given"])[-1]
        return warn("firewall", f"iptables does not work: {reason}", "Does the kernel have nf_tables or ip_tables?")
    if daemon is not None and any(f":{name} " not in done.stdout for name in chain_names(config.label)):
        return warn("firewall", "its chains are missing", "They come back within 15 s; else look at the daemon's log.")
    who = "apps and builds are" if config.build.firewall else "apps are, and builds are not (build.firewall = false),"
    return ok("firewall", f"{who} kept away from the host's services and the metadata address")


async def _names(domain: str) -> Finding:
    """Apps need a wildcard record."""
    if domain == "localhost" or domain.endswith(".localhost"):
        return ok("dns", f"*.{domain} means this machine, without DNS")
    try:
        async with asyncio.timeout(10):
            found = await asyncio.get_running_loop().getaddrinfo(
                f"paasd-doctor.{domain}", None, type=socket.SOCK_STREAM
            )
    except (TimeoutError, OSError) as error:
        text = f"paasd-doctor.{domain} has no address ({error or 'no answer in time'})"
        return warn("dns", text, f"Add a wildcard record for *.{domain} that points to this machine.")
    return ok("dns", f"*.{domain} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}")
