"""What the service manager that started the daemon hears of it: that it is ready, that it still answers, that it stops.

The protocol is sd_notify(3): datagrams to the Unix socket `$NOTIFY_SOCKET`. With a `WatchdogSec=` in the unit
(`$WATCHDOG_USEC`, microseconds) systemd ends a daemon that was silent that long and starts it again; apps and Nginx
do not notice. Without these variables nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

_log = logging.getLogger(__name__)


class ServiceManager:
    """`probe` asks the daemon something that only a working one answers; it raises otherwise."""

    def __init__(self, probe: Callable[[], Awaitable[object]], environment: Mapping[str, str] = os.environ) -> None:
        self._probe = probe
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._interval = _watchdog_seconds(environment) / 6
        """Two probes may fail, or be late, before patience ends."""
        self._task: asyncio.Task[None] | None = None

    def ready(self) -> None:
        self._tell("READY=1")
        if self._address and self._interval:
            self._task = asyncio.create_task(self._stay_alive(), name="watchdog")

    async def stopping(self) -> None:
        self._tell("STOPPING=1")
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stay_alive(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._probe()
                self._tell("WATCHDOG=1")
            except Exception as error:
                _log.warning("the daemon does not answer itself: %s", repr(error))
            await asyncio.sleep(self._interval)

    def _tell(self, state: str) -> None:
        """A service manager that cannot be reached changes nothing for the daemon."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.setblocking(False)
            notify.sendto(state.encode(), address)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """0 where none watches, or another process is meant (`$WATCHDOG_PID`)."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() else 0
