"""What a part of the policy is made of, and the grammars that several parts use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paasd.app_settings import Key

Values = Mapping[str, str]
"""What was set, by key, in its usual form."""


@dataclass(frozen=True)
class Part:
    """Settings that the edge takes as one member of the policy."""

    name: str
    keys: Mapping[str, Key]
    policy: Callable[[Values], object | None]
    """What the edge is told, fit for JSON; None when nothing is to be done."""
    check: Callable[[Values], None] = lambda values: None
    """Raises ValueError when values that are right by themselves do not go together."""
