"""Waits for git to move the refs of an accepted push. Git does that only after its hook said yes, so for a moment a
release is live whose revision the branch does not show yet; the next push must not look at the branch before."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from paasd.errors import PaasdError
from paasd.models import App, RefUpdate
from paasd.source.repositories import Repositories

NOTHING = "0" * 40
"""Git's object id for a ref that is not there."""
_PATIENCE = 5.0
"""Seconds after which a push counts as landed whatever its refs say: git may have been killed."""
_LOOK = 0.02


class Landings:
    """Which pushes to an app have not ended in its repository yet, oldest first."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._under_way: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self._waiting: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def turn(self, app: App, updates: Sequence[RefUpdate]) -> AsyncIterator[Sequence[asyncio.Event]]:
        """Gives the landings of the pushes before this one. Leave the block normally to accept the push."""
        earlier, landed = list(self._under_way[app.id]), asyncio.Event()
        self._under_way[app.id].append(landed)
        try:
            yield earlier
        except BaseException:
            self._end(app, landed)
            raise
        task = asyncio.create_task(self._land(app, updates, landed))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _land(self, app: App, updates: Sequence[RefUpdate], landed: asyncio.Event) -> None:
        try:
            with contextlib.suppress(TimeoutError, PaasdError):
                async with asyncio.timeout(_PATIENCE):
                    while True:
                        refs = await self._repositories.refs(app)
                        if all(refs.get(update.ref, NOTHING) == update.new for update in updates):
                            return
                        await asyncio.sleep(_LOOK)
        finally:
            self._end(app, landed)

    def _end(self, app: App, landed: asyncio.Event) -> None:
        landed.set()
        self._under_way[app.id].remove(landed)
        if not self._under_way[app.id]:
            del self._under_way[app.id]
