"""The strategy for apps that must not run twice: the old instances end before the new ones start, and come back when
these do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paasd import failpoints
from paasd.clock import steady
from paasd.drivers.base import Driver
from paasd.edge_values import Route
from paasd.errors import PaasdError
from paasd.progress import Progress
from paasd.route.edge import Edge
from paasd.routing import Routing
from paasd.run.instances import Instances
from paasd.run.retire import Retirement
from paasd.run.rollout import Launch, Rollout

_log = logging.getLogger(__name__)


class Recreate:
    def __init__(
        self,
        driver: Driver,
        instances: Instances,
        retirement: Retirement,
        rollout: Rollout,
        routing: Routing,
        edge: Edge,
    ) -> None:
        self._driver = driver
        self._instances = instances
        self._retirement = retirement
        self._rollout = rollout
        self._routing = routing
        self._edge = edge

    @asynccontextmanager
    async def vacated(self, old: Launch, progress: Progress) -> AsyncIterator[None]:
        """Nothing of the app runs inside the block. When it fails, `old`, what is live, is started again: its rows
        stay as they are until the switch, so that a killed daemon's successor does the same."""
        progress.step(f"Stopping {old.release.version} first ({len(old.rows)} instances, strategy recreate)")
        try:
            await self._end(old)
            await failpoints.hit("old-vacated")
            yield
        except BaseException:
            await asyncio.shield(self._bring_back(old, progress))
            raise

    async def _end(self, old: Launch) -> None:
        """The edge answers 503 with a page that retries from here on."""
        await self._edge.set_route(Route(old.app.name))
        started, settings = steady(), old.settings
        web = [row.address for row in old.rows if row.process_type == "web"]
        await self._retirement.quiet(web, started + settings.drain, started + settings.stream_drain)
        await asyncio.gather(*(self._driver.stop(row.name, settings.stop_timeout) for row in old.rows))

    async def _bring_back(self, old: Launch, progress: Progress) -> None:
        live = {row.name for row in await self._instances.of(old.app, "live")}
        if not {row.name for row in old.rows} <= live:
            return  # the switch was made
        progress.step(f"Starting {old.release.version} again")
        try:
            await self._rollout.bring_up(old, progress)
        except PaasdError as error:
            progress.warn(f"{old.release.version} does not come back yet: {error.detail}")
            _log.warning("%s %s does not come back yet: %s", old.app.name, old.release.version, error.detail)
        await self._edge.set_route(await self._routing.of(old.app))
