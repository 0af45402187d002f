"""Where builds are in the network, and what of this host they need: its proxies, for a start.

Builds run in the engine's default network, beside every other container that was given none. Nothing smaller than that
network's subnet tells a build from those.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from paasd.build.host import apt_config_dump
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.edge_values import Endpoint
from paasd.errors import EngineError, InvalidInput

_log = logging.getLogger(__name__)

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
_APT_PROXY = re.compile(r'Acquire::[^ ]*proxy[^ ]* "([^"]+)";', re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_AGAIN_AFTER = 300.0
_TIMEOUT = 20.0


class BuildNetwork:
    """`subnets_and_services` is cheap to call often: names are looked up again after some minutes only."""

    def __init__(self, config: BuildConfig, engine: DockerEngine) -> None:
        self._config = config
        self._engine = engine
        self._own = parse_services(config.host_services)
        self._subnets: list[str] = []
        self._services: list[Endpoint] = []
        self._looked_at = 0.0

    async def subnets_and_services(self) -> tuple[list[str], list[Endpoint]]:
        """Subnets that builds are in, and what they may reach whatever else is refused. Nothing when not wanted."""
        if not self._config.firewall:
            return [], []
        try:
            found = await self._engine.request("GET", "/networks/bridge")
            self._subnets = ipv4_subnets(found)
        except EngineError:
            pass  # the rules of last time stay as long as the engine is away
        if not self._looked_at or time.monotonic() - self._looked_at > _AGAIN_AFTER:
            self._looked_at = time.monotonic()
            self._services = [*self._own, *await _addresses(proxies(os.environ, await apt_config_dump()))]
        return self._subnets, self._services


def ipv4_subnets(network: Mapping[str, object]) -> list[str]:
    ipam = network.get("IPAM")
    entries = (ipam.get("Config") if isinstance(ipam, dict) else None) or []
    return [str(entry["Subnet"]) for entry in entries if "." in str(entry.get("Subnet"))]


def parse_services(text: str) -> list[Endpoint]:
    """`172.17.0.1:3128 10.0.0.5:8081`. Raises InvalidInput."""
    found = []
    for word in text.split():
        address, _, port = word.rpartition(":")
        try:
            found.append(Endpoint(str(ipaddress.IPv4Address(address)), int(port)))
        except ValueError:
            raise InvalidInput(f"build.host_services: {word!r} is not an IPv4 address and a port") from None
    return found


def proxies(environment: Mapping[str, str], apt_config: str) -> list[tuple[str, int]]:
    """Hosts and ports of the proxies that this host uses."""
    urls = [value for name, value in environment.items() if name.lower() in _PROXIES]
    urls += [value for value in _APT_PROXY.findall(apt_config) if value.upper() != "DIRECT"]
    found: list[tuple[str, int]] = []
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        except ValueError:
            continue
        if parts.hostname and port and (parts.hostname, port) not in found:
            found.append((parts.hostname, port))
    return found


async def _addresses(services: Iterable[tuple[str, int]]) -> list[Endpoint]:
    found: list[Endpoint] = []
    for host, port in services:
        try:
            async with asyncio.timeout(_TIMEOUT):
                answers = await asyncio.get_running_loop().getaddrinfo(
                    host, port, family=socket.AF_INET, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError) as error:
            _log.warning("the proxy %s has no address, so builds may not reach it: %s", host, error or "no answer")
            continue
        found += [Endpoint(str(answer[4][0]), port) for answer in answers]
    return sorted({e for e in found if not ipaddress.IPv4Address(e.address).is_loopback}, key=str)
