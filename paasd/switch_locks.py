"""One lock per app: whoever changes its live release, or its name, holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from paasd.models import App


class SwitchLocks:
    """A lock exists only as long as somebody holds it or waits for it, so that nothing is kept of destroyed apps."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, app: App) -> asyncio.Lock:
        lock = self._locks.get(app.id)
        if lock is None:
            lock = self._locks[app.id] = asyncio.Lock()
        return lock

    def is_held(self, app: App) -> bool:
        lock = self._locks.get(app.id)
        return lock is not None and lock.locked()

    @asynccontextmanager
    async def if_free(self, app: App) -> AsyncIterator[bool]:
        """Hold the lock, True; or False when somebody else holds it right now."""
        if self.is_held(app):
            yield False
            return
        async with self.of(app):
            yield True

    def __len__(self) -> int:
        return len(self._locks)
