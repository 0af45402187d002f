"""A push under way, and how it is ended from outside."""

from __future__ import annotations

import asyncio
from typing import Any

from paasd.build.builds import BuildRow
from paasd.errors import Cancelled, PaasdError


class ActivePush:
    """A push under way. `end()` makes it fail with a reason, until it is past its switch."""

    def __init__(self, build: BuildRow, task: asyncio.Task[Any]) -> None:
        self.build = build
        self.reason: PaasdError | None = None
        self.done = asyncio.Event()
        self._task = task
        self._past_switch = False

    def end(self, reason: PaasdError) -> bool:
        """False when it is too late: the new release is live and the push completes."""
        if self._past_switch:
            return False
        if self.reason is None:
            self.reason = reason
            self._task.cancel()
        return True

    def pass_switch(self) -> None:
        """From here on the push can only succeed or fail by itself. Raises CancelledError if it was ended before."""
        if self.reason is not None:
            raise asyncio.CancelledError
        self._past_switch = True

    def finish(self) -> None:
        """It succeeded or failed: too late to end it."""
        self._past_switch = True

    async def end_when(self, gone: asyncio.Event) -> None:
        """End the push once its pusher has left."""
        await gone.wait()
        self.end(Cancelled("the client went away before the new release was live"))
