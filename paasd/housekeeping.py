"""Forgets in the background what is older than the settings under `keep` say: events, deployments, releases, images."""

from __future__ import annotations

import asyncio
import logging

from paasd.build.builder import Builder
from paasd.config import KeepConfig
from paasd.deployments import Deployments
from paasd.errors import PaasdError
from paasd.events import Events
from paasd.release import Releases

_log = logging.getLogger(__name__)

_INTERVAL = 600.0


class Housekeeping:
    """Once soon after the start, then every ten minutes. Nothing waits for it."""

    def __init__(
        self, keep: KeepConfig, events: Events, deployments: Deployments, releases: Releases, builder: Builder
    ) -> None:
        self._keep = keep
        self._events = events
        self._deployments = deployments
        self._releases = releases
        self._builder = builder
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _loop(self) -> None:
        while True:
            try:
                await self.sweep()
            except PaasdError as error:
                _log.warning("housekeeping: %s", error.detail)
            except Exception:
                _log.exception("housekeeping failed")
            await asyncio.sleep(_INTERVAL)

    async def sweep(self) -> None:
        """Releases after the deployments that told of them, images after the releases."""
        await self._events.prune(self._keep.events)
        await self._deployments.prune(self._keep.deployments, self._keep.releases)
        await self._releases.prune()
        await self._builder.prune_images()
