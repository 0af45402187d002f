"""Where the daemon may connect to because somebody who is no administrator wrote it down."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from paasd.errors import InvalidInput
from paasd.names import shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LOOKUP_TIMEOUT = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_lookups = ThreadPoolExecutor(4, "look-up")
"""Of their own: a name server that says nothing holds its thread long after the question was given up."""
_PORTS = {"https": 443, "http": 80}


def may_reach(address: Address, apps: str, allowed: str) -> bool:
    """Public addresses and the `allowed` networks, separated by spaces; never those of `apps`."""
    if (inner := _inner(address)) is not None and not may_reach(inner, apps, allowed):
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped in ipaddress.ip_network(apps):
        return False
    networks = [ipaddress.ip_network(text) for text in allowed.split()]
    is_public = mapped.is_global and not mapped.is_multicast and not getattr(mapped, "is_site_local", False)
    return is_public or any(mapped in network for network in networks)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that one of IPv6 leads to: by 6to4, Teredo, NAT64 (RFC 6052), or as RFC 4291 once had it."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.sixtofour or address.teredo:
        return address.sixtofour or (address.teredo[1] if address.teredo else None)
    carried = int(address) & 0xFFFF_FFFF
    if address in _NAT64 or (int(address) >> 32 == 0 and carried > 1):
        return ipaddress.IPv4Address(carried)
    return None


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
            ask = partial(socket.getaddrinfo, parts.hostname, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(_lookups, ask)
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
