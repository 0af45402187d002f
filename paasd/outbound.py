"""Where the daemon may connect to because somebody who is no administrator wrote it down."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from paasd.errors import InvalidInput
from paasd.names import shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LOOKUP_TIMEOUT = 10.0
_PORTS = {"https": 443, "http": 80}


def may_reach(address: Address, apps: str, allowed: str) -> bool:
    """Public addresses and the `allowed` networks, separated by spaces; never those of `apps`."""
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped in ipaddress.ip_network(apps):
        return False
    networks = [ipaddress.ip_network(text) for text in allowed.split()]
    return bool(mapped.is_global and not mapped.is_multicast) or any(mapped in network for network in networks)


async def look_up(url: str) -> tuple[str, int, Address]:
    """Host, port and the first address of an http(s) URL. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if not port or not parts.hostname:
        raise InvalidInput(f"{shown(url)} is not an http(s) address", hint="Write for example: https://git.box/a.git")
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        raise InvalidInput(f"{shown(parts.hostname)} has no address", hint="Check the host name.") from None
    return parts.hostname, port, ipaddress.ip_address(str(found[0][4][0]))


class Pinned(AbstractResolver):
    """The address that was judged, whatever the name says a moment later."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(self._address),
                port=port,
                family=socket.AF_INET6 if self._address.version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """There is nothing to close."""
