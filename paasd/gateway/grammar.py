"""Checks of values that several parts have."""

from __future__ import annotations

from collections.abc import Sequence

from paasd.app_settings import Check, whole

FAILURES = ("connect", "timeout", "502", "503", "504")
"""How a request may fail at one instance: no connection, no answer in time, or these statuses of its own; a connection
that ends without an answer counts as 502."""


def percent(least: int) -> Check:
    def check(value: str) -> str:
        return whole(least, 100, "a percentage")(value.strip().removesuffix("%").strip())

    return check


def some_failures(value: str) -> str:
    """Words of FAILURES, in their order."""
    words = value.replace(",", " ").lower().split()
    if not words or set(words) - set(FAILURES):
        raise ValueError(f"some of {', '.join(FAILURES)}")
    return in_order(words)


def in_order(words: Sequence[str]) -> str:
    return ",".join(failure for failure in FAILURES if failure in words)
