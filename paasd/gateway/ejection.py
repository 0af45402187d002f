"""Part `eject`: instances that fail again and again get no requests for a while. Also what the edge says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paasd.app_settings import Key, duration, whole
from paasd.gateway.grammar import FAILURES, some_failures
from paasd.gateway.parts import Part, Values

KEYS: Mapping[str, Key] = {
    "eject.failures": Key(
        whole(1, 100, "a number of failures"), "Failures in a row that take an instance out for a while (never)."
    ),
    "eject.window": Key(duration(1, 3600), "Time in which they must come (30s)."),
    "eject.time": Key(
        duration(1, 3600), "How long the first time is (30s); each further one is longer, up to 5 minutes."
    ),
    "eject.on": Key(some_failures, f"What counts as failure ({','.join(FAILURES)})."),
}


def policy(values: Values) -> dict[str, object] | None:
    if "eject.failures" not in values:
        return None
    return {
        "failures": int(values["eject.failures"]),
        "window": float(values.get("eject.window", 30)),
        "time": float(values.get("eject.time", 30)),
        "on": values.get("eject.on", ",".join(FAILURES)).split(","),
    }


@dataclass(frozen=True)
class Ejection:
    app: str
    release: int
    endpoint: str
    seconds: float
    """Until it gets requests again."""
    times: int
    """How often it was taken out lately."""


def parse_ejections(text: str) -> list[Ejection]:
    found = []
    for line in text.splitlines():
        app, release, endpoint, seconds, times = line.split()
        found.append(Ejection(app, int(release), endpoint, float(seconds), int(times)))
    return found


PART = Part("eject", KEYS, policy)
