"""Takes old instances out of service after a switch: drain, SIGTERM, SIGKILL, forget."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from paasd import failpoints
from paasd.clock import steady
from paasd.config import RunConfig
from paasd.drivers.base import Driver
from paasd.edge_values import InFlight
from paasd.errors import PaasdError
from paasd.run.instances import InstanceRow, Instances

_log = logging.getLogger(__name__)

_SETTLE = 0.5
"""Seconds an old instance stays at least: workers of a reloaded Nginx go on with the old table for about 0.1 s."""
_LOOK = 0.5
_RETRY = 10.0

AskInFlight = Callable[[], Awaitable[Mapping[str, InFlight]]]


class Retirement:
    """One task per retiring instance. A restart of the daemon takes up again what the table says."""

    def __init__(self, driver: Driver, instances: Instances, in_flight: AskInFlight, config: RunConfig) -> None:
        self._driver = driver
        self._instances = instances
        self._in_flight = in_flight
        self._config = config
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, row: InstanceRow) -> None:
        """Retire `row`, whose state is `retiring`. Twice: nothing happens."""
        if row.name not in self._tasks:
            task = asyncio.create_task(self._retire(row), name=f"retire {row.name}")
            self._tasks[row.name] = task
            task.add_done_callback(lambda _: self._tasks.pop(row.name, None))

    async def close(self) -> None:
        """Leave the rest to the next start."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def finish(self, names: set[str]) -> None:
        """Wait until these instances are gone."""
        await asyncio.gather(*(task for name, task in self._tasks.items() if name in names), return_exceptions=True)

    async def _retire(self, row: InstanceRow) -> None:
        await self._drained(row)
        await failpoints.hit("before-stop-old")
        while True:
            try:
                await self._driver.stop(row.name, row.stop_timeout or self._config.stop_timeout)
                await self._instances.forget([row.name])
                return
            except PaasdError as error:
                _log.warning("cannot stop %s yet: %s", row.name, error.detail)
                await asyncio.sleep(_RETRY)

    async def _drained(self, row: InstanceRow) -> None:
        """Wait until no request is left, at most until `retire_at`, and no stream, at most until `streams_until`."""
        if row.process_type != "web":
            return
        await asyncio.sleep(_SETTLE)
        await self.quiet([row.address], row.retire_at or 0, row.streams_until or 0)

    async def quiet(self, addresses: Collection[str], requests_until: float, streams_until: float) -> None:
        """Wait until the edge has nothing under way to these addresses, at most until these times."""
        quiet = 0
        while quiet < 2 and (left := max(requests_until, streams_until) - steady()) > 0:
            busy = await self._busy(addresses)
            requests = busy.requests and steady() < requests_until
            streams = busy.streams and steady() < streams_until
            quiet = 0 if requests or streams else quiet + 1
            await asyncio.sleep(min(_LOOK, left))

    async def _busy(self, addresses: Collection[str]) -> InFlight:
        """All that is under way to them; an edge that does not answer counts as busy."""
        try:
            counts = await self._in_flight()
        except PaasdError:
            return InFlight(1, 1)
        found = [busy for endpoint, busy in counts.items() if endpoint.rpartition(":")[0] in addresses]
        return InFlight(sum(busy.requests for busy in found), sum(busy.streams for busy in found))
