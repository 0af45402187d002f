"""Keeps instances and builds away from the host's services, the metadata address and (other) projects. Owns the
iptables chains `PAASD-<label>-IN` (from INPUT) and `PAASD-<label>-FW` (from DOCKER-USER, or FORWARD without one).

The container engine isolates its networks too; this does not depend on it. Networks are IPv4 only.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from paasd import capabilities
from paasd.config import Config
from paasd.edge_values import Endpoint

_log = logging.getLogger(__name__)

METADATA = "169.254.0.0/16"
_TIMEOUT = 15
_RESTORE = ["iptables-restore", "--noflush", "-w", "5"]
"""All changes at once, or none."""
_LOCK = Path("/run/xtables.lock")
_RESOLV_CONF = Path("/etc/resolv.conf")
_UPLINKS = Path("/run/systemd/resolve/resolv.conf")
"""What the engine gives to containers where /etc/resolv.conf names only systemd's own server on the loopback."""
_SAFE_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,18}")


Builds = Callable[[], Awaitable[tuple[Sequence[str], Sequence[Endpoint]]]]
"""Subnets of builds, and what they may reach on this host."""


async def _no_builds() -> tuple[Sequence[str], Sequence[Endpoint]]:
    return (), ()


class Firewall:
    """`apply` never raises: a machine without a usable iptables is said once and runs without these rules.

    Every paasd on an engine has rules of its own for the builds' subnet, which all of them share: so they go with it
    and the others' stay.
    """

    def __init__(self, config: Config, builds: Builds = _no_builds) -> None:
        self._config = config
        self._builds = builds
        self._input, self._forward = chain_names(config.label)
        self._wanted: list[str] | None = None
        self._seen: list[str] | None = None
        self._changing = asyncio.Lock()
        self.trouble = ""
        """Why the rules are not in place; empty when they are, or when the firewall is switched off."""

    async def apply(self, subnets: Sequence[str], ports: Sequence[int]) -> bool:
        """Let instances of `subnets` reach nothing of the host but TCP `ports`. True if something had to change."""
        if not self._config.run.firewall:
            return False
        async with self._changing:
            shared, services = await self._builds()
            try:
                changed = await asyncio.to_thread(self._apply, list(subnets), list(ports), list(shared), list(services))
            except (OSError, subprocess.SubprocessError) as error:
                self._note(_reason(error))
                return False
            self._note("")
            return changed

    async def remove(self) -> None:
        """Take the chains away. Without any: nothing happens."""
        async with self._changing:
            self._wanted = self._seen = None
            await asyncio.to_thread(remove_chains, self._config.label)

    def _apply(self, subnets: list[str], ports: list[int], shared: list[str], services: list[Endpoint]) -> bool:
        saved = _save()
        parent = "DOCKER-USER" if ":DOCKER-USER " in saved else "FORWARD"
        free = service_rules(shared, services)
        forward = forward_rules([*subnets, *shared], self._config.run.subnet_pool)
        wanted = [
            *(f"-A {self._input} {rule}" for rule in (*free, *input_rules(subnets, ports), *input_rules(shared, ()))),
            *(f"-A {self._forward} {rule}" for rule in (*free, *forward)),
        ]
        jumps = [(parent, self._forward), ("INPUT", self._input)]
        missing = [jump for jump in jumps if f"-A {jump[0]} -j {jump[1]}" not in saved.splitlines()]
        stale = self._stale(saved, subnets)
        # iptables prints rules in words of its own, so what it printed after the last change is what counts.
        if wanted == self._wanted and self._rules(saved) == self._seen and not missing and not stale:
            return False
        heads = [f":{self._input} - [0:0]", f":{self._forward} - [0:0]"]
        inserts = [f"-I {chain} 1 -j {target}" for chain, target in missing]
        _run(_RESTORE, "\n".join(["*filter", *heads, *stale, *wanted, *inserts, "COMMIT\n"]))
        self._wanted, self._seen = wanted, self._rules(_save())
        return True

    def _rules(self, saved: str) -> list[str]:
        names = (f"-A {self._input} ", f"-A {self._forward} ")
        return [line for line in saved.splitlines() if line.startswith(names)]

    def _stale(self, saved: str, subnets: Sequence[str]) -> list[str]:
        """Deletes rules of another paasd, dead or gone, for subnets that the engine has meanwhile given to us."""
        ours = (self._input, self._forward)
        return [
            f"-D{line[2:]}"
            for line in saved.splitlines()
            if line.startswith("-A PAASD-")
            and line.split()[1] not in ours
            and any(f" -s {subnet} " in line for subnet in subnets)
        ]

    def _note(self, trouble: str) -> None:
        if trouble and not self.trouble:
            _log.warning(
                "apps and builds can reach the host's services and the metadata address, because"
                " iptables is of no use: %s "
                "(give the daemon CAP_NET_ADMIN, or set run.firewall = false to say this is wanted)",
                trouble,
            )
        self.trouble = trouble


def chain_names(label: str) -> tuple[str, str]:
    """For INPUT and for forwarded packets. A chain's name has at most 28 characters."""
    part = label if _SAFE_LABEL.fullmatch(label) else hashlib.sha256(label.encode()).hexdigest()[:18]
    return f"PAASD-{part}-IN", f"PAASD-{part}-FW"


def remove_chains(label: str) -> None:
    """Blocking. Nothing happens when there are none."""
    lines = _save().splitlines()
    names = [name for name in chain_names(label) if any(line.startswith(f":{name} ") for line in lines)]
    jumps = [line for line in lines if line.startswith("-A ") and line.split()[-2:] in [["-j", name] for name in names]]
    if names:
        text = ["*filter", *(f"-D{line[2:]}" for line in jumps)]
        text += [f"{option} {name}" for option in ("-F", "-X") for name in names]
        _run(_RESTORE, "\n".join([*text, "COMMIT\n"]))


def input_rules(subnets: Sequence[str], ports: Sequence[int]) -> list[str]:
    """Answers to the edge pass, new connections to `ports` (the edge's) and to the machine's name servers too."""
    rules = []
    for subnet in subnets:
        source = f"-s {ipaddress.IPv4Network(subnet)}"
        rules.append(f"{source} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
        rules += [f"{source} -p tcp -m tcp --dport {int(port)} -j RETURN" for port in ports]
        rules += _name_servers(source)
        rules += _reject(source)
    return rules


def service_rules(subnets: Sequence[str], services: Sequence[Endpoint]) -> list[str]:
    """A proxy or package index that may be on the host itself."""
    return [
        f"-s {ipaddress.IPv4Network(subnet)} -d {ipaddress.IPv4Address(service.address)}/32"
        f" -p tcp -m tcp --dport {int(service.port)} -j RETURN"
        for subnet in subnets
        for service in services
    ]


def forward_rules(subnets: Sequence[str], pool: str) -> list[str]:
    """A project's instances reach each other and the world, but neither the metadata range nor other projects."""
    foreign = [str(ipaddress.IPv4Network(pool))]
    foreign += [net for net in subnets if not ipaddress.IPv4Network(net).overlaps(ipaddress.IPv4Network(pool))]
    rules = []
    for subnet in subnets:
        source = f"-s {ipaddress.IPv4Network(subnet)}"
        rules += [f"{source} -d {subnet} -j RETURN", *_name_servers(source)]
        for target in (METADATA, *foreign):
            rules += _reject(f"{source} -d {target}")
    return rules


def name_servers(text: str) -> list[str]:
    """IPv4 name servers of a resolv.conf: on some clouds the metadata address is one."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(ipaddress.IPv4Address(words[1])))
            except ValueError:
                continue
    return [address for address in found if not ipaddress.IPv4Address(address).is_loopback]


def _name_servers(source: str) -> list[str]:
    return [
        f"{source} -d {server}/32 -p {protocol} -m {protocol} --dport 53 -j RETURN"
        for server in name_servers(_read(_RESOLV_CONF)) or name_servers(_read(_UPLINKS))
        for protocol in ("udp", "tcp")
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _reject(match: str) -> list[str]:
    """A reset is understood at once; silence would make apps wait."""
    return [f"{match} -p tcp -j REJECT --reject-with tcp-reset", f"{match} -j REJECT"]


def _save() -> str:
    return _run(["iptables-save", "-t", "filter"])


def _run(command: list[str], text: str = "") -> str:
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}
    if os.geteuid() != 0 and not os.access(_LOCK, os.W_OK):
        environment["XTABLES_LOCKFILE"] = "/dev/null"  # only iptables-legacy locks, and only root can open its file
    with capabilities.network_admin():
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, env=environment, check=True
        )
    return done.stdout


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if not line.startswith("#")]
        return lines[0] if lines else f"{error.cmd[0]} ended with status {error.returncode}"
    if isinstance(error, FileNotFoundError):
        return "iptables is not installed (apt-get install iptables)"
    return str(error)
