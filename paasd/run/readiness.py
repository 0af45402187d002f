"""Which live instances get no requests although the database would have it so. In memory: after a start of the daemon
all count as ready until they are seen not to be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from paasd.run.instances import InstanceRow


class Readiness:
    def __init__(self) -> None:
        self._unready: set[str] = set()

    def mark(self, name: str, ready: bool) -> bool:
        """True when that is news."""
        before = name not in self._unready
        (self._unready.discard if ready else self._unready.add)(name)
        return before != ready

    def is_ready(self, name: str) -> bool:
        return name not in self._unready

    def serving(self, rows: Sequence[InstanceRow]) -> list[InstanceRow]:
        """Those that get requests: the ready ones, or all when none is, since one of them may still answer and none
        should have the load of all."""
        return [row for row in rows if row.name not in self._unready] or list(rows)

    def forget_others(self, names: Collection[str]) -> None:
        """Only these instances still exist."""
        self._unready.intersection_update(names)
