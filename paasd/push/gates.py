"""How many strangers may stand at the SSH door: paramiko has no limits of its own.

OpenSSH's MaxStartups refuses newcomers at random once strangers crowd the door, so a crowd of silent connections also
keeps honest clients out. Here the newcomer is let in and the stranger who has waited longest is shown out, those first
who have not even said hello: an honest client proves itself in tens of milliseconds.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable


class Ticket:
    """One unauthenticated connection's place at the gate."""

    def __init__(self, gate: Gate, source: str, evict: Callable[[], None]) -> None:
        self._gate = gate
        self.source = source
        self.evict = evict
        self.greeted = False
        """True once the client has sent its SSH version line."""

    def leave(self) -> None:
        """Free the place: the client authenticated or its connection ended. May be called twice."""
        self._gate.remove(self)


class Gate:
    def __init__(self, total: int, per_source: int) -> None:
        self._total = total
        self._per_source = per_source
        self._tickets: dict[Ticket, None] = {}
        self._sources: Counter[str] = Counter()
        self.evicted = 0
        self.refused = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, address: str, evict: Callable[[], None]) -> Ticket | None:
        """A place for a new connection, or None if its source has too many. `evict` is called, once the ticket has
        been taken away, when somebody newer needs the place."""
        source = network(address)
        if self._sources[source] >= self._per_source:
            self.refused += 1
            return None
        if len(self._tickets) >= self._total:
            victim = self._longest_waiting()
            self.remove(victim)
            self.evicted += 1
            victim.evict()
        ticket = Ticket(self, source, evict)
        self._tickets[ticket] = None
        self._sources[source] += 1
        return ticket

    def remove(self, ticket: Ticket) -> None:
        if ticket in self._tickets:
            del self._tickets[ticket]
            self._sources[ticket.source] -= 1
            if not self._sources[ticket.source]:
                del self._sources[ticket.source]

    def _longest_waiting(self) -> Ticket:
        silent = (ticket for ticket in self._tickets if not ticket.greeted)
        return next(silent, None) or next(iter(self._tickets))


def network(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that one IPv6 host commands."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
