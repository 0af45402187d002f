"""Pushes and other changes under way, how they are ended from outside, and which push wins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paasd.build.builds import BuildRow
from paasd.errors import Cancelled, PaasdError, Superseded
from paasd.models import App, Push
from paasd.progress import Progress


class Active:
    """A change of an app's release under way. `end()` makes it fail with a reason, until it is past its switch."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.reason: PaasdError | None = None
        self._task = task
        self._past_switch = False

    def end(self, reason: PaasdError) -> bool:
        """False when it is too late: the new release is live and the change completes."""
        if self._past_switch:
            return False
        if self.reason is None:
            self.reason = reason
            self._task.cancel()
        return True

    def pass_switch(self) -> None:
        """From here on it can only succeed or fail by itself. Raises CancelledError if it was ended before."""
        if self.reason is not None:
            raise asyncio.CancelledError
        self._past_switch = True

    def finish(self) -> None:
        """It succeeded or failed: too late to end it."""
        self._past_switch = True

    @contextmanager
    def told(self) -> Iterator[None]:
        """Inside, being ended raises the reason instead of CancelledError."""
        try:
            yield
        except asyncio.CancelledError:
            if self.reason is None:
                raise
            self._task.uncancel()
            raise self.reason from None


class ActivePush(Active):
    def __init__(self, build: BuildRow, task: asyncio.Task[Any]) -> None:
        super().__init__(task)
        self.build = build
        self.done = asyncio.Event()

    async def end_when(self, gone: asyncio.Event) -> None:
        """End the push once its pusher has left."""
        await gone.wait()
        self.end(Cancelled("the client went away before the new release was live"))

    async def make_way(self, push: Push, progress: Progress) -> None:
        """A newer push to the app has come: end, or be waited for when it is too late for that."""
        if self.done.is_set():
            return
        reason = Superseded(f"a newer push ({push.revision[:8]}) to the same app took over", hint="Nothing to do.")
        if self.end(reason):
            progress.step(f"Taking over from build {self.build.number}, which has not gone live")
        else:
            progress.step(f"Waiting for build {self.build.number}, which is going live")
        await self.done.wait()


class ActivePushes:
    """All of them; the newest of an app is the one that counts."""

    def __init__(self) -> None:
        self._newest: dict[str, ActivePush] = {}
        self._all: set[ActivePush] = set()

    def begin(self, active: ActivePush) -> ActivePush | None:
        """The newest of its app from now on. Returns the one it follows."""
        app_id = active.build.app_id
        previous, self._newest[app_id] = self._newest.get(app_id), active
        self._all.add(active)
        return previous

    def finished(self, active: ActivePush) -> None:
        self._all.discard(active)
        if self._newest.get(active.build.app_id) is active:
            del self._newest[active.build.app_id]
        active.done.set()

    def of(self, app: App) -> ActivePush | None:
        """The newest push to an app."""
        return self._newest.get(app.id)

    async def end_all(self, reason: PaasdError) -> None:
        """End what can be ended, and wait for all."""
        pushes = list(self._all)
        for active in pushes:
            active.end(reason)
        await asyncio.gather(*(active.done.wait() for active in pushes))
