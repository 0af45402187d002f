"""Part `limits`: how many requests a client may make, and how many at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from paasd.app_settings import Check, Key
from paasd.gateway.parts import Part, Values

_MOST_RULES = 8
_BY = r"(?: by (ip|path|all|header:[a-z0-9-]{1,64}))?"
_ON = r"(?: on (/[A-Za-z0-9._~!$&'()*+,=:@/-]{0,200}))?"
_RATE = re.compile(rf"([1-9][0-9]{{0,4}})/([smh])(?: burst ([1-9][0-9]{{0,5}}))?{_BY}{_ON}")
_CONNECTIONS = re.compile(rf"([1-9][0-9]{{0,5}}){_BY}{_ON}")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_RATES = (
    f"up to {_MOST_RULES} rules between ; each such as 20/s, 5/m by header:x-api-key, or 2/s burst 10 by ip on /login;"
    " by is ip, path, all or header:NAME"
)
_AT_A_TIME = f"up to {_MOST_RULES} rules between ; each such as 20, 5 by header:x-api-key, or 100 by all on /search"


def _rules(pattern: re.Pattern[str], what: str) -> Check:
    def check(value: str) -> str:
        found = [_rule(pattern, text) for text in value.split(";") if text.strip()]
        if None in found or not 1 <= len(found) <= _MOST_RULES:
            raise ValueError(what)
        return "; ".join(dict.fromkeys(str(rule) for rule in found))

    return check


def _rule(pattern: re.Pattern[str], text: str) -> str | None:
    """In its usual form; None if it is none. All but paths may be written in capitals."""
    words = text.split()
    lower = [word if word.startswith("/") else word.lower() for word in words]
    found = pattern.fullmatch(" ".join(lower))
    path = (found[found.re.groups] if found else None) or ""
    if not found or "//" in path or {".", ".."} & set(path.split("/")):
        return None
    return " ".join(lower[:-2] if path == "/" else lower).rstrip("/")


def _rate(text: str) -> dict[str, object]:
    """`{"every": seconds for one, "burst": most at once, "by": "ip", "on": "/login"}`"""
    count, unit, burst, by, on = _found(_RATE, text)
    rule: dict[str, object] = {"every": float(Fraction(_SECONDS[unit], int(count))), "burst": int(burst or count)}
    return {**rule, **_whom(by, on)}


def _connections(text: str) -> dict[str, object]:
    most, by, on = _found(_CONNECTIONS, text)
    return {"most": int(most), **_whom(by, on)}


def _found(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    found = pattern.fullmatch(text)
    assert found is not None
    return found.groups()


def _whom(by: str | None, on: str | None) -> dict[str, str]:
    return {"by": by or "ip"} | ({"on": on} if on else {})


KEYS: Mapping[str, Key] = {
    "limit.rate": Key(
        _rules(_RATE, _RATES),
        "Requests let in, such as 20/s burst 40; 5/m by header:x-api-key; 2/s by ip on /login. More get 429.",
    ),
    "limit.connections": Key(
        _rules(_CONNECTIONS, _AT_A_TIME), "Requests and WebSockets at a time, such as 20 by ip. More get 429."
    ),
}
_READ: Mapping[str, Callable[[str], dict[str, object]]] = {"limit.rate": _rate, "limit.connections": _connections}


def policy(values: Values) -> dict[str, object] | None:
    part: dict[str, object] = {
        key.removeprefix("limit."): [read(text) for text in values[key].split("; ")]
        for key, read in _READ.items()
        if key in values
    }
    return part or None


PART = Part("limits", KEYS, policy)
