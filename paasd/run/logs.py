"""Reads what instances write, several at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from paasd.drivers.base import Driver
from paasd.errors import PaasdError
from paasd.models import App, LogLine

_QUEUE = 2000
"""Lines kept for a reader that is slower than the app; after that the app's lines wait in the engine."""
_LOOK = 1.0


class Logs:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def recent(self, app: App, tail: int, process: str | None = None) -> list[LogLine]:
        """The last `tail` lines over all instances, oldest first. `process`: `web`, or `web.1`."""
        lines: list[LogLine] = []
        for name in await self._names(app, process):
            lines += [line async for line in self._driver.logs(name, tail=tail)]
        return sorted(lines, key=lambda line: line.at)[-tail:] if tail else []

    async def follow(self, app: App, tail: int, process: str | None = None) -> AsyncIterator[LogLine]:
        """Recent lines, then new ones as they come, also of instances that start meanwhile. Ends never; close it."""
        queue: asyncio.Queue[LogLine] = asyncio.Queue(_QUEUE)
        readers: dict[str, asyncio.Task[None]] = {}
        watcher = asyncio.create_task(self._watch(app, tail, process, queue, readers))
        try:
            while True:
                yield await queue.get()
        finally:
            tasks = [watcher, *readers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(
        self,
        app: App,
        tail: int,
        process: str | None,
        queue: asyncio.Queue[LogLine],
        readers: dict[str, asyncio.Task[None]],
    ) -> None:
        """Keep one reader per instance; those that are there at first show `tail` lines, later ones all of theirs."""
        for line in await self.recent(app, tail, process):
            await queue.put(line)
        first = True
        while True:
            with contextlib.suppress(PaasdError):
                for name in await self._names(app, process):
                    if name not in readers or (readers[name].done() and not first):
                        backlog = 0 if first else 1000
                        known = name in readers
                        readers[name] = asyncio.create_task(self._read(name, 0 if known else backlog, queue))
            first = False
            await asyncio.sleep(_LOOK)

    async def _read(self, name: str, tail: int, queue: asyncio.Queue[LogLine]) -> None:
        with contextlib.suppress(PaasdError):
            async for line in self._driver.logs(name, tail=tail, follow=True):
                await queue.put(line)

    async def _names(self, app: App, process: str | None) -> list[str]:
        instances = await self._driver.list(app.id)
        wanted = (None, "")
        return [
            i.name for i in instances if process in wanted or process in (i.process_type, f"{i.process_type}.{i.index}")
        ]
