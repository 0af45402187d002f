"""Part `timeouts`: how long the edge waits for an app."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, duration
from paasd.gateway.parts import Part, Values

KEYS: Mapping[str, Key] = {
    "timeout.connect": Key(duration(0.1, 60), "Time for a connection to an instance (5s)."),
    "timeout.send": Key(duration(0.1, 86400), "Time between two writes to an instance (60s)."),
    "timeout.read": Key(duration(0.1, 86400), "Time between two reads from an instance (60s)."),
    "timeout.stream": Key(duration(1, 604_800), "Silence after which WebSockets and event streams are ended (1h)."),
}


def policy(values: Values) -> dict[str, object] | None:
    part = {key.removeprefix("timeout."): float(values[key]) for key in KEYS if key in values}
    return {**part} if part else None


PART = Part("timeouts", KEYS, policy)
