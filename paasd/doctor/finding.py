"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    check: str
    level: Level
    text: str
    mend: str = ""
    """What to type or change; empty when there is nothing to do."""


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warn(check: str, text: str, mend: str) -> Finding:
    return Finding(check, Level.WARN, text, mend)


def fail(check: str, text: str, mend: str) -> Finding:
    return Finding(check, Level.FAIL, text, mend)
