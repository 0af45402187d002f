"""Takes old instances out of service after a switch: drain, SIGTERM, SIGKILL, forget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from paasd import failpoints
from paasd.config import RunConfig
from paasd.drivers.base import Driver
from paasd.errors import PaasdError
from paasd.run.instances import InstanceRow, Instances

_log = logging.getLogger(__name__)

_SETTLE = 0.5
"""Seconds an old instance stays at least: workers of a reloaded Nginx go on with the old table for about 0.1 s."""
_LOOK = 0.5
_RETRY = 10.0

InFlight = Callable[[], Awaitable[Mapping[str, int]]]


class Retirement:
    """One task per retiring instance. A restart of the daemon takes up again what the table says."""

    def __init__(self, driver: Driver, instances: Instances, in_flight: InFlight, config: RunConfig) -> None:
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
                await self._driver.stop(row.name, self._config.stop_timeout)
                await self._instances.forget([row.name])
                return
            except PaasdError as error:
                _log.warning("cannot stop %s yet: %s", row.name, error.detail)
                await asyncio.sleep(_RETRY)

    async def _drained(self, row: InstanceRow) -> None:
        """Wait until no request is left, at most until `retire_at`."""
        if row.process_type != "web":
            return
        await asyncio.sleep(_SETTLE)
        quiet = 0
        while quiet < 2 and time.time() < (row.retire_at or 0):
            quiet = quiet + 1 if await self._is_quiet(row) else 0
            await asyncio.sleep(_LOOK)

    async def _is_quiet(self, row: InstanceRow) -> bool:
        try:
            counts = await self._in_flight()
        except PaasdError:
            return False
        return not any(count for endpoint, count in counts.items() if endpoint.startswith(f"{row.address}:"))
