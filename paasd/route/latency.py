"""What a histogram of latencies says: quantiles and the Apdex."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

Histogram = Mapping[float, int]
"""Requests by upper bound in seconds, ascending, `inf` last; not cumulative."""

APDEX_TARGET = 0.5
"""Seconds within which people are satisfied; up to four times as long they tolerate."""


def quantile(latency: Histogram, share: float) -> float | None:
    """Seconds within which this share (0 to 1) was answered, as if requests lay evenly in each bucket; of the last
    bucket, which has no end, its beginning. None without requests."""
    total = sum(latency.values())
    if not total:
        return None
    lower, before = 0.0, 0
    for upper, count in latency.items():
        if before + count >= share * total and count:
            return lower if upper == inf else lower + (upper - lower) * (share * total - before) / count
        lower, before = upper, before + count
    return lower


def within(latency: Histogram, seconds: float) -> float:
    """Requests answered within so many seconds, estimated in the same way."""
    lower, found = 0.0, 0.0
    for upper, count in latency.items():
        if upper > seconds:
            return found + (0.0 if upper == inf else count * (seconds - lower) / (upper - lower))
        lower, found = upper, found + count
    return found


def apdex(latency: Histogram, errors: int, target: float = APDEX_TARGET) -> float | None:
    """0 to 1: the satisfied, and half of those who tolerate, of all (Apdex specification 1.1). Answers with 5xx please
    nobody; they are taken to have come quickly. None without requests."""
    total = sum(latency.values())
    if not total:
        return None
    satisfied = within(latency, target)
    tolerating = within(latency, 4 * target) - satisfied
    return max(0.0, min(1.0, (max(0.0, satisfied - errors) + tolerating / 2) / total))
