"""Checks of values that several parts have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from paasd.app_settings import Check, whole

FAILURES = ("connect", "timeout", "502", "503", "504")
"""How a request may fail at one instance: no connection, no answer in time, or these statuses of its own; a connection
that ends without an answer counts as 502."""

LONGEST_RULES = 8192
_PIECE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^;\r\n])+')


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


def split_rules(text: str) -> list[str]:
    """Rules separated by `;` or line ends, but not within quotes. Raises ValueError."""
    if len(text) > LONGEST_RULES:
        raise ValueError(f"rules of at most {LONGEST_RULES} characters together")
    found = [match[0].strip(" \t") for match in _PIECE.finditer(text)]
    return [rule for rule in found if rule]
