"""What the edge's counters say of a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paasd.route.control import AppCounters


@dataclass(frozen=True)
class Traffic:
    """What was answered, and how much of it with 5xx."""

    requests: int = 0
    errors: int = 0

    @classmethod
    def of(cls, app: str, counters: Mapping[str, AppCounters]) -> Traffic:
        """What the release that is live had: not its successor's canary, and not what came while nothing ran."""
        all_, *others = (cls._counted(counters.get(name)) for name in (app, f"{app}~", f"{app}!"))
        return cls(all_.requests - sum(o.requests for o in others), all_.errors - sum(o.errors for o in others))

    @classmethod
    def _counted(cls, counters: AppCounters | None) -> Traffic:
        return cls(counters.requests, counters.statuses["5xx"]) if counters else cls()

    @classmethod
    def at(cls, baseline: Mapping[str, Any] | None) -> Traffic | None:
        return cls(**baseline) if baseline is not None else None

    def since(self, earlier: Traffic | None) -> Traffic:
        """What came after `earlier`; nothing when that is not known, or when Nginx began to count anew."""
        if earlier is None or earlier.requests > self.requests or earlier.errors > self.errors:
            return Traffic()
        return Traffic(self.requests - earlier.requests, self.errors - earlier.errors)

    @property
    def share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0
