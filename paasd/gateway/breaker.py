"""Part `breaker`: apps that fail too often get no requests for a while. Also what the edge says of breakers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paasd.app_settings import Key, duration, whole
from paasd.gateway.grammar import percent
from paasd.gateway.parts import Part, Values

_ANSWERS = (429, 500, 502, 503, 504)


def _answer(value: str) -> str:
    if value.strip() not in map(str, _ANSWERS):
        raise ValueError(f"one of {', '.join(map(str, _ANSWERS))}")
    return value.strip()


KEYS: Mapping[str, Key] = {
    "breaker.share": Key(percent(1), "Per cent of answers with 5xx or none at which the breaker opens (no breaker)."),
    "breaker.window": Key(duration(1, 600), "Time that the share is taken of (10s)."),
    "breaker.least": Key(whole(1, 100_000, "a number of requests"), "Fewest requests in the window to open at (20)."),
    "breaker.time": Key(duration(1, 3600), "How long it stays open before probes are let through (30s)."),
    "breaker.probes": Key(
        whole(1, 100, "a number of requests"), "Requests let through as probes; all must go well (3)."
    ),
    "breaker.answer": Key(_answer, "Status that others get while it is open (503)."),
}
_DEFAULTS = {"window": 10.0, "least": 20, "time": 30.0, "probes": 3, "answer": 503}


def policy(values: Values) -> dict[str, object] | None:
    if "breaker.share" not in values:
        return None
    part: dict[str, object] = {"share": int(values["breaker.share"])}
    for name, usual in _DEFAULTS.items():
        part[name] = type(usual)(values.get(f"breaker.{name}", usual))
    return part


@dataclass(frozen=True)
class BreakerState:
    state: str
    """closed, open or half-open."""
    seconds: float
    """Until probes are let through; 0 unless open."""
    requests: int
    errors: int
    """Of the window, or of the one that opened it."""


def parse_breakers(text: str) -> dict[str, BreakerState]:
    """By app, of those that have counted lately."""
    found = {}
    for line in text.splitlines():
        app, state, seconds, requests, errors = line.split()
        found[app] = BreakerState(state, float(seconds), int(requests), int(errors))
    return found


PART = Part("breaker", KEYS, policy)
