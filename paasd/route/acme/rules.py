"""When certificates are renewed, retried and told of, and which names go into one. Pure: times are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from paasd.route.pem import covers

DAY = 86400.0
MOST_NAMES = 50
"""Names of one certificate. Authorities take a hundred; one that fails costs the others a second order."""
_SHORT_LIVED = 10 * DAY
_RETRIES = (60.0, 600.0, 6000.0)
_LONGEST_WAIT = 7 * DAY
"""What would be later was written down when the clock was wrong."""


def renew_at(starts: float, ends: float, wanted: float | None = None) -> float:
    """When a third of the lifetime is left, half of it where that is short, or when the authority wants it (RFC 9773);
    never so late that somebody had to be alarmed before."""
    lifetime = ends - starts
    if wanted is None:
        return ends - lifetime / (2 if lifetime < _SHORT_LIVED else 3)
    return min(wanted, alarm_at(starts, ends))


def alarm_at(starts: float, ends: float) -> float:
    """From a sixth of the lifetime left people should know that it was not renewed."""
    return ends - (ends - starts) / 6


def retry_after(failures: int, asked: float | None = None) -> float:
    """Seconds until the next attempt after so many failures, later if the authority asked for that."""
    own = _RETRIES[failures - 1] if failures <= len(_RETRIES) else DAY
    return min(max(own, asked or 0.0), _LONGEST_WAIT)


@dataclass(frozen=True)
class Held:
    """A certificate there is."""

    names: tuple[str, ...]
    renew_at: float


@dataclass(frozen=True)
class Trouble:
    """A name that got no certificate."""

    failures: int
    retry_at: float
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    orders: tuple[tuple[str, ...], ...]
    """Names of each certificate to get now."""
    next_at: float | None
    """When to look again; None when nothing waits."""


def plan(
    wanted: Sequence[str], held: Iterable[Held], troubles: Mapping[str, Trouble], now: float, most: int = MOST_NAMES
) -> Plan:
    """As few certificates as possible: a new name is put into a new one together with those there are. A name that
    waits for its next attempt holds up no other."""
    fresh = [each for each in held if now < each.renew_at]
    missing = {name for name in wanted if not any(covers(each.names, name) for each in fresh)}
    waiting = {name for name in wanted if name in troubles and now < troubles[name].retry_at <= now + _LONGEST_WAIT}
    orders = []
    for start in range(0, len(wanted), most):
        group = wanted[start : start + most]
        if any(name in missing and name not in waiting for name in group):
            orders.append(_without_covered([name for name in group if name not in waiting]))
    times = [troubles[name].retry_at for name in waiting & missing]
    times += [each.renew_at for each in fresh if any(covers(each.names, name) for name in wanted)]
    return Plan(tuple(orders), min(times, default=None))


def _without_covered(names: Sequence[str]) -> tuple[str, ...]:
    """Authorities refuse an order that names both a wildcard and what it stands for."""
    return tuple(name for name in names if not covers([other for other in names if other != name], name))


def wildcards(names: Iterable[str]) -> list[str]:
    """The names' parents as wildcards, where that is more than a top level domain."""
    found = []
    for name in names:
        parent = name.partition(".")[2]
        found.append(f"*.{parent}" if "." in parent and not name.startswith("*.") else name)
    return list(dict.fromkeys(found))
