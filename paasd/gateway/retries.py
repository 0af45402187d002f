"""Part `retries`: requests that failed at one instance are sent to another."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, whole
from paasd.gateway.grammar import percent, some_failures
from paasd.gateway.parts import Part, Values

KEYS: Mapping[str, Key] = {
    "retries.count": Key(whole(0, 4, "a number of other instances"), "Other instances that a request may try (4)."),
    "retries.on": Key(
        some_failures,
        "Failures after which it does: connect, timeout, 502, 503, 504 (connect); POST and PATCH: connect.",
    ),
    "retries.budget": Key(
        percent(0), "Retries of requests that an instance has had, in per cent of all requests (20)."
    ),
}


def policy(values: Values) -> dict[str, object] | None:
    if not values.keys() & KEYS.keys():
        return None
    return {
        "count": int(values.get("retries.count", 4)),
        "on": values.get("retries.on", "connect").split(","),
        "budget": int(values.get("retries.budget", 20)),
    }


PART = Part("retries", KEYS, policy)
