"""Time for deadlines: seconds since the epoch, as the system's clock had it when the daemon started, going on evenly
from there whatever is done to that clock.

Boxes without a battery start years in the past, and clocks are set by hand. Deadlines taken from the system's clock
would then all be over at once, or never come. What happened when, and what is due at a time of day, still goes by the
system's clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

_LOOK = 5.0
_JUMP = 2.0
"""Seconds; what NTP slews in the time between two looks is far below."""


class SteadyClock:
    """Goes on during a suspend (CLOCK_BOOTTIME). Another start begins from the system's clock again, so what was
    written down before is passed to `not_before`."""

    def __init__(self) -> None:
        self._offset = time.time() - self._elapsed()

    def __call__(self) -> float:
        return self._elapsed() + self._offset

    def not_before(self, moment: float) -> None:
        """The system's clock may have been put back while no daemon ran: time is at least `moment` already."""
        self._offset += max(0.0, moment - self())

    @staticmethod
    def _elapsed() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


steady = SteadyClock()
"""The daemon's one."""


class ClockWatch:
    """Calls `set_anew` when the system's clock was set: what waits for a time of day waits for another moment then."""

    def __init__(self, set_anew: Callable[[], Awaitable[None]]) -> None:
        self._set_anew = set_anew
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="clock")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        ahead = time.time() - steady()
        while True:
            await asyncio.sleep(_LOOK)
            jump = time.time() - steady() - ahead
            if abs(jump) < _JUMP:
                continue
            _log.warning("the clock was set %s by %.0f s", "forward" if jump > 0 else "back", abs(jump))
            try:
                await self._set_anew()
                ahead += jump
            except Exception:
                _log.exception("what waits for a time of day could not be planned anew yet")
