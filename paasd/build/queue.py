"""Lets a few builds run at a time, first come, first served, and tells the others their place."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from paasd.progress import Progress

_MEMORY_PER_BUILD = 2 * 1024**3


def default_concurrency() -> int:
    """One build per core, as long as each has 2 GiB of the box's memory."""
    by_memory = int(psutil.virtual_memory().total) // _MEMORY_PER_BUILD
    return max(1, min(os.cpu_count() or 1, by_memory))


class BuildQueue:
    def __init__(self, limit: int) -> None:
        self.limit = limit or default_concurrency()
        self._running = 0
        self._waiting: deque[tuple[asyncio.Future[None], Progress]] = deque()

    @asynccontextmanager
    async def slot(self, progress: Progress) -> AsyncIterator[None]:
        """Wait for a turn; the block runs with it. A cancelled waiter gives its place up."""
        if self._running < self.limit and not self._waiting:
            self._running += 1
        else:
            await self._wait(progress)
        try:
            yield
        finally:
            self._running -= 1
            self._admit()

    async def _wait(self, progress: Progress) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (turn, progress)
        self._waiting.append(place)
        progress.step(f"Waiting for a builder: {self.limit} builds are running, position {len(self._waiting)}")
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._running -= 1
                self._admit()
            else:
                self._waiting.remove(place)
                self._announce()
            raise

    def _admit(self) -> None:
        while self._waiting and self._running < self.limit:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
        self._announce()

    def _announce(self) -> None:
        for position, (_, progress) in enumerate(self._waiting, start=1):
            progress.detail(f"position {position}")
