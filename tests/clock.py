"""A clock for tests that would otherwise wait for days."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """The system's, and `ahead` seconds of it."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead
