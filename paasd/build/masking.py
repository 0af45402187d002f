"""Keeps the values of secrets out of what a build prints: as they are, not what a program may make of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from paasd.models import Secret

MASK = b"****"
SHORTEST = 6
"""Shorter values, such as `1` or `true`, are left: with them masked, nobody could read a log."""
_WORDS = {"development", "disabled", "enabled", "preview", "production", "staging"}


def masking(secrets: Iterable[Secret]) -> Callable[[bytes], bytes]:
    """A function that masks the values in a line. Of a value of several lines, each line is masked."""
    lines = {line.strip() for secret in secrets for line in secret.reveal().splitlines()}
    parts = sorted((line for line in lines if len(line) >= SHORTEST and line not in _WORDS), key=len, reverse=True)
    if not parts:
        return lambda line: line
    pattern = re.compile(b"|".join(re.escape(part.encode()) for part in parts))
    return lambda line: pattern.sub(MASK, line)
