"""The main job, top to bottom: a push becomes a build, a release, healthy instances and a route.

    push → source → build → release → run → route

`Deployer.push` reads in that order; the last two are told in `go_live.py`. Pushes to one app take turns and the newest
wins; what changes the live release of an app holds its switch lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from paasd import failpoints
from paasd.active_push import ActivePush
from paasd.apps import Apps
from paasd.build.builder import Builder
from paasd.build.builds import BuildRow
from paasd.config_vars import ConfigVars
from paasd.drivers.base import Driver
from paasd.errors import Cancelled, Conflict, NotFound, PaasdError, Superseded
from paasd.go_live import GoLive
from paasd.models import Actor, App, Checkout, Project, Push, Release, Route
from paasd.progress import Progress
from paasd.release import Releases
from paasd.route.edge import Edge
from paasd.run.instances import Instances
from paasd.run.retire import Retirement

_log = logging.getLogger(__name__)

_LAST_CHANGES = 10.0
"""Seconds that changes past their switch get to end when the daemon stops."""

OpenCheckout = Callable[[], Awaitable[Checkout]]


class Deployer:
    """One per daemon. Holds who is deploying what; everything else it knows is in the database."""

    def __init__(
        self,
        apps: Apps,
        config_vars: ConfigVars,
        builder: Builder,
        releases: Releases,
        driver: Driver,
        instances: Instances,
        retirement: Retirement,
        edge: Edge,
        go_live: GoLive,
    ) -> None:
        self._apps = apps
        self._config_vars = config_vars
        self._builder = builder
        self._releases = releases
        self._driver = driver
        self._instances = instances
        self._retirement = retirement
        self._edge = edge
        self._go_live = go_live
        self._pushes: dict[str, ActivePush] = {}
        """The newest of each app."""
        self._active: set[ActivePush] = set()
        self._switches: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._background: set[asyncio.Task[None]] = set()
        self._changes: set[asyncio.Task[Any]] = set()
        self._closing: Cancelled | None = None

    async def push(
        self, actor: Actor, app: App, push: Push, checkout: OpenCheckout, progress: Progress, gone: asyncio.Event
    ) -> Release:
        """Build and deploy one pushed revision. Raises Superseded when a newer push to the app came, Cancelled when
        the pusher left (`gone`) or said so, or why it failed."""
        if self._closing:
            raise self._closing
        build = await self._builder.request(app, push)
        log = self._builder.open_log(build)
        progress.add(log.write)
        task = asyncio.current_task()
        assert task is not None
        active = ActivePush(build, task)
        watch = asyncio.create_task(active.end_when(gone))
        previous, self._pushes[app.id] = self._pushes.get(app.id), active
        self._active.add(active)
        try:
            await failpoints.hit("build-requested")
            await self._overtake(previous, push, progress)
            image = await self._builder.build(app, build, checkout, progress)
            async with self._switches[app.id]:
                app = replace(await self._apps.get(app.organization_id, app.name), stopped=False)
                config = await self._config_vars.get(app)
                release = await self._releases.from_build(app, image, config, actor.name)
                await failpoints.hit("release-created")
                await self._go_live(actor, app, release, progress, release_task=True, pass_switch=active.pass_switch)
            self._later(self._builder.prune(app))
            return release
        except asyncio.CancelledError:
            if active.reason is None:
                raise
            task.uncancel()
            raise active.reason from None
        finally:
            watch.cancel()
            active.finish()
            try:
                await asyncio.shield(self._builder.settle(app, build, active.reason))
                progress.remove(log.write)
                await log.close()
            finally:
                self._active.discard(active)
                if self._pushes.get(app.id) is active:
                    del self._pushes[app.id]
                active.done.set()

    def cancel(self, app: App, number: int | None, reason: PaasdError) -> BuildRow:
        """End the app's push under way. Raises NotFound when there is none, Conflict when it is already live."""
        active = self._pushes.get(app.id)
        if active is None or number not in (None, active.build.number):
            raise NotFound(f"{app.name} has no build {number or ''} under way", hint=f"List them: builds {app.name}")
        if not active.end(reason):
            raise Conflict("too late to cancel: the new release is live", hint=f"Go back with: rollback {app.name}")
        return active.build

    async def reconfigure(self, actor: Actor, app: App, description: str, progress: Progress) -> Release | None:
        """A release with the app's present config vars, live without a gap. None when there is nothing to run yet."""
        async with self._changing(app):
            app = await self._apps.get(app.organization_id, app.name)
            current = await self._releases.current(app)
            if current is None:
                return None
            config = await self._config_vars.get(app)
            release = await self._releases.with_config(app, current, config, actor.name, description)
            await self._go_live(actor, app, release, progress)
            return release

    async def rollback(self, actor: Actor, app: App, number: int | None, progress: Progress) -> Release:
        """Everything of an old release, as a new one. Raises NotFound when it, or its image, is gone."""
        async with self._changing(app):
            app = await self._apps.get(app.organization_id, app.name)
            by_number, previous = self._releases.by_number, self._releases.before_current
            old = await (by_number(app, number) if number else previous(app))
            await self._builder.require_image(old)
            release = await self._releases.from_old(app, old, actor.name)
            progress.step(f"Rolling back to {old.version} as {release.version}")
            restore = self._config_vars.restoring(app, release.config)
            await self._go_live(actor, app, release, progress, on_live=restore)
            return release

    async def adopt(self, actor: Actor, app: App, other: Release, progress: Progress) -> Release:
        """Make the image of another app's release the first release of `app`, a clone."""
        async with self._changing(app):
            app = await self._apps.get(app.organization_id, app.name)
            release = await self._releases.adopted(app, other, await self._config_vars.get(app), actor.name)
            await self._go_live(actor, app, release, progress)
            return release

    async def route_of(self, app: App) -> Route:
        """The route the database wants for an app."""
        return await self._go_live.route_of(app)

    async def sync_routes(self, apps: Sequence[App]) -> None:
        """Correct the edge's routes. An app that is being switched right now is left to its switch."""
        present = await self._edge.routes()
        for app in apps:
            if not self._switches[app.id].locked():
                async with self._switches[app.id]:
                    wanted = await self._present_route(app)
                    if wanted and present.get(wanted.app) != wanted:
                        await self._edge.set_route(wanted)

    async def _present_route(self, app: App) -> Route | None:
        """None for an app that was destroyed meanwhile."""
        try:
            return await self._go_live.route_of(await self._apps.get(app.organization_id, app.name))
        except NotFound:
            return None

    def is_busy(self, app: App) -> bool:
        """Whether a push to the app, or a change of its release, is under way."""
        return app.id in self._pushes or self._switches[app.id].locked()

    @asynccontextmanager
    async def undisturbed(self, app: App) -> AsyncIterator[bool]:
        """Hold the app's switch lock, True; or False when its release is being changed right now."""
        if self._switches[app.id].locked():
            yield False
            return
        async with self._switches[app.id]:
            yield True

    async def ensure_network(self, app: App) -> Project:
        return await self._go_live.network(app)

    async def restart(self, actor: Actor, app: App, progress: Progress) -> Release:
        """New instances of the live release in place of the old ones, without a gap; also starts a stopped app."""
        async with self._changing(app):
            app = replace(await self._apps.get(app.organization_id, app.name), stopped=False)
            release = await self._live(app)
            await self._go_live(actor, app, release, progress)
            return release

    async def scale(self, actor: Actor, app: App, progress: Progress) -> None:
        """Make the live instances match the app's scale; those that fit already are left alone."""
        async with self._changing(app):
            app = await self._apps.get(app.organization_id, app.name)
            release = await self._releases.current(app)
            if release is None or app.stopped:
                return
            await self._go_live(actor, app, release, progress, keep_fitting=True)

    async def stop(self, app: App, progress: Progress) -> None:
        """Take the app out of service; its release stays what `ps:start` brings back."""
        async with self._changing(app):
            rows = await self._instances.of(app)
            await self._go_live.take_down(app, rows)
            for row in await self._instances.of(app):
                self._retirement.begin(row)
            await self._retirement.finish({row.name for row in rows})
            progress.detail(f"{len(rows)} instances stopped")

    async def remove(self, app: App) -> None:
        """Everything of an app that is about to be destroyed, but its rows."""
        active = self._pushes.get(app.id)
        if active and active.end(Cancelled(f"{app.name} was destroyed")):
            await active.done.wait()
        async with self._switches[app.id]:
            await self._edge.set_route(Route(app.name))
            rows = await self._instances.of(app)
            await asyncio.gather(*(self._driver.stop(row.name, 5) for row in rows))
            await self._instances.forget([row.name for row in rows])

    async def close(self) -> None:
        """End what is under way: pushes fail with a reason, retiring goes on after the next start."""
        self._closing = Cancelled("paasd is stopping", hint="Push again once it is back.")
        pushes, changes = list(self._active), list(self._changes)
        for active in pushes:
            active.end(self._closing)
        for change in changes:
            change.cancel()
        await asyncio.gather(*(active.done.wait() for active in pushes))
        if changes:
            await asyncio.wait(changes, timeout=_LAST_CHANGES)
        await self._retirement.close()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    @asynccontextmanager
    async def _changing(self, app: App) -> AsyncIterator[None]:
        """Hold the app's switch lock for a change that nobody pushed; `close()` ends it with its reason."""
        if self._closing:
            raise self._closing
        task = asyncio.current_task()
        assert task is not None
        self._changes.add(task)
        try:
            async with self._switches[app.id]:
                yield
        except asyncio.CancelledError:
            if self._closing is None:
                raise
            task.uncancel()
            raise self._closing from None
        finally:
            self._changes.discard(task)

    async def _overtake(self, previous: ActivePush | None, push: Push, progress: Progress) -> None:
        if previous is None or previous.done.is_set():
            return
        reason = Superseded(f"a newer push ({push.revision[:8]}) to the same app took over", hint="Nothing to do.")
        if previous.end(reason):
            progress.step(f"Taking over from build {previous.build.number}, which has not gone live")
        else:
            progress.step(f"Waiting for build {previous.build.number}, which is going live")
        await previous.done.wait()

    async def _live(self, app: App) -> Release:
        release = await self._releases.current(app)
        if release is None:
            raise Conflict(f"{app.name} has not been deployed yet", hint=f"Push it: git push paasd main ({app.name})")
        return release

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception():
            _log.error("background work failed", exc_info=task.exception())
