"""Part `retries`: requests that failed at one instance are sent to another."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, whole
from paasd.gateway.numbers import percent, some_failures

PART = "retries"
_STATUSES = ("502", "503", "504")
KEYS: Mapping[str, Key] = {
    "retries.count": Key(whole(0, 4, "a number of other instances"), "Other instances that a request may try (4)."),
    "retries.on": Key(
        some_failures, "Failures after which it does: connect, timeout, 502, 503, 504 (connect); POST and PATCH: connect."
    ),
    "retries.budget": Key(percent(0), "Retries of requests that an instance has had, in per cent of all requests (20)."),
}


def policy(values: Mapping[str, str]) -> dict[str, object] | None:
    if not values.keys() & KEYS.keys():
        return None
    return {
        "count": int(values.get("retries.count", 4)),
        "on": values.get("retries.on", "connect").split(","),
        "budget": int(values.get("retries.budget", 20)),
    }


def statuses(values: Mapping[str, str]) -> list[str]:
    """Statuses of the app that are tried elsewhere: Nginx has to know them by the location."""
    return [status for status in values.get("retries.on", "").split(",") if status in _STATUSES]
