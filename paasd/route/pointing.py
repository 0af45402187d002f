"""Whether host names point to this box, by DNS, said so that people see what is wrong.

Only dnspython asks, and only here and for ACME; it is loaded when it is first used."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import psutil

from paasd.config import HttpConfig
from paasd.errors import InvalidInput
from paasd.names import shown
from paasd.route.host_names import base_of, is_wildcard, lies_in

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_TIMEOUT = 4.0
"""Seconds for all queries about one name."""
_ALL_WITHIN = 10.0
_AT_ONCE = 20
_SAMPLE = "paasd-check."
"""What stands for any name below a wildcard."""
_NOT_REACHED = ("lo", "docker", "br-", "veth")
"""Interfaces that nobody from outside comes in by."""


class Verdict(StrEnum):
    HERE = "here"
    PARTLY = "partly"
    ELSEWHERE = "elsewhere"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Pointing:
    name: str
    verdict: Verdict
    answer: str
    """`points to 1.2.3.4, this box is 5.6.7.8`"""


class Pointings:
    """`resolver` is made anew for each look, since the host's configuration may change."""

    def __init__(self, http: HttpConfig, resolver: Callable[[], Resolver] | None = None) -> None:
        self._listens = _bound_to(http.address)
        self._public = _addresses(http.public_addresses)
        self._resolver = resolver or _hosts_own

    async def box(self) -> list[str]:
        """Addresses of this box, as far as it knows them."""
        return [str(address) for address in await self._own()]

    async def look(self, names: Sequence[str]) -> list[Pointing]:
        """Never takes long, and raises nothing: what cannot be found out is said."""
        own, found = await self._own(), {}
        try:
            resolver = await asyncio.to_thread(self._resolver)
        except Exception as error:  # whatever is wrong with the host's configuration
            return [_unknown(name, f"this box has no name server to ask ({_reason(error)})") for name in names]
        slots = asyncio.Semaphore(_AT_ONCE)

        async def ask(name: str) -> None:
            async with slots:
                found[name] = await self._one(resolver, name, own)

        tasks = [asyncio.create_task(ask(name)) for name in names]
        if tasks:
            await asyncio.wait(tasks, timeout=_ALL_WITHIN)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [found.get(name) or _unknown(name, "DNS takes too long to answer") for name in names]

    async def _one(self, resolver: Resolver, name: str, own: Sequence[Address]) -> Pointing:
        if lies_in(base_of(name), "localhost"):
            return Pointing(name, Verdict.HERE, "every machine takes it for itself, so it works on this box only")
        asked = f"{_SAMPLE}{base_of(name)}" if is_wildcard(name) else name
        try:
            async with asyncio.timeout(_TIMEOUT):
                found = await _look_up(resolver, asked)
        except TimeoutError:
            return _unknown(name, "DNS does not answer in time")
        except _NoAnswer as error:
            return _unknown(name, f"DNS cannot be asked: {error}")
        return self._judged(name, found, own)

    def _judged(self, name: str, found: Sequence[Address], own: Sequence[Address]) -> Pointing:
        box = f"this box is {_listed(own)}" if own else "which addresses this box has is not known"
        if not found:
            there = f" (asked for {_SAMPLE}{base_of(name)})" if is_wildcard(name) else ""
            return Pointing(name, Verdict.MISSING, f"has no address in DNS{there}, {box}")
        here = [address for address in found if address in own]
        if len(here) == len(found):
            return Pointing(name, Verdict.HERE, f"points to {_listed(found)}, which is this box")
        answer = f"points to {_listed(found)}, {box}"
        if here:
            return Pointing(name, Verdict.PARTLY, f"{answer}: some requests go elsewhere")
        if self._behind_nat(own) and any(address.is_global for address in found):
            return _unknown(
                name,
                f"{answer} and has no public address of its own: behind NAT nobody but you can tell whether that is"
                " right (http.public_addresses)",
            )
        return Pointing(name, Verdict.ELSEWHERE, answer)

    def _behind_nat(self, own: Collection[Address]) -> bool:
        return not self._public and not any(address.is_global for address in own)

    async def _own(self) -> list[Address]:
        """What was set, then what the interfaces have or the edge is bound to."""
        if self._listens:
            return list(dict.fromkeys([*self._public, self._listens]))
        return list(dict.fromkeys([*self._public, *await asyncio.to_thread(_of_interfaces)]))


class _NoAnswer(Exception):
    pass


async def _look_up(resolver: Resolver, name: str) -> list[Address]:
    """All addresses, of both kinds, as far as they could be asked; none when the name does not exist."""
    found = await asyncio.gather(*(_records(resolver, name, kind) for kind in ("A", "AAAA")), return_exceptions=True)
    addresses = [ipaddress.ip_address(text) for texts in found if isinstance(texts, list) for text in texts]
    if not addresses and (failures := [each for each in found if isinstance(each, BaseException)]):
        raise failures[0]
    return addresses


async def _records(resolver: Resolver, name: str, kind: str) -> list[str]:
    import dns.exception
    import dns.name
    import dns.resolver

    try:
        # The dot keeps the host's search list out of it.
        answer = await resolver.resolve(f"{name}.", kind, lifetime=_TIMEOUT, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return []
    except dns.resolver.LifetimeTimeout:
        raise TimeoutError from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise _NoAnswer(_reason(error)) from error
    return sorted(str(record.address) for record in answer.rrset or ())


def _hosts_own() -> Resolver:
    """Reads /etc/resolv.conf; called in a thread, for that and for what is loaded here."""
    import dns.asyncbackend
    import dns.asyncresolver

    dns.asyncbackend.get_backend("asyncio")
    return dns.asyncresolver.Resolver()


def _bound_to(address: str) -> Address | None:
    """None for all addresses, and for what is no address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return None if found.is_unspecified else found


def _of_interfaces() -> list[Address]:
    found: list[Address] = []
    for interface, addresses in psutil.net_if_addrs().items():
        if interface.startswith(_NOT_REACHED):
            continue
        for each in addresses:
            try:
                address = ipaddress.ip_address(each.address)
            except ValueError:
                continue  # that of the hardware, or one with a scope
            if not address.is_link_local and not address.is_loopback:
                found.append(address)
    return sorted(found, key=lambda address: (not address.is_global, address.version, address))


def _addresses(text: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(word) for word in text.split()]
    except ValueError as error:
        raise InvalidInput(f"http.public_addresses: {error}", hint="Separate addresses by spaces.") from None


def _unknown(name: str, answer: str) -> Pointing:
    return Pointing(name, Verdict.UNKNOWN, answer)


def _listed(addresses: Sequence[Address]) -> str:
    return " and ".join(map(str, addresses[:5])) + (" and others" if len(addresses) > 5 else "")


def _reason(error: Exception) -> str:
    return shown(str(error) or type(error).__name__, 200).strip("'\"")
