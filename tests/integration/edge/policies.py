"""Gives apps of a bench their policies, by the settings that users would set."""

from __future__ import annotations

import json

from paasd.gateway import balancing, breaker, ejection, retries, timeouts
from tests.integration.edge.conftest import Bench

PARTS = (balancing, breaker, ejection, retries, timeouts)


async def set_policy(bench: Bench, app: str, **settings: str) -> None:
    """`balance__sticky="on"` sets balance.sticky."""
    values = {}
    for name, value in settings.items():
        key = name.replace("__", ".")
        part = next(part for part in PARTS if key in part.KEYS)
        values[key] = part.KEYS[key].check(value)
    policy = {part.PART: made for part in PARTS if (made := part.policy(values))}
    await bench.edge._control.put(f"policies/{app}", json.dumps(policy))
