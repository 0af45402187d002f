"""The main job, top to bottom: a push becomes a build, a release, healthy instances and a route.

    push → source → build → release → run → route

`Deployer.push` reads in that order; the last two are told in `go_live.py`. Pushes to one app take turns and the newest
wins; what changes the live release of an app holds its switch lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from paasd import failpoints
from paasd.active_push import ActivePush, ActivePushes
from paasd.apps import Apps
from paasd.build.builder import Builder, OpenCheckout
from paasd.build.builds import BuildRow
from paasd.build.registry import Registries
from paasd.config_vars import ConfigVars
from paasd.errors import Cancelled, Conflict, NotFound, NothingToDeploy, PaasdError
from paasd.go_live import GoLive
from paasd.models import Actor, App, Project, Push, Release, Route
from paasd.progress import Progress
from paasd.release import Releases
from paasd.route.edge import Edge
from paasd.run.instances import Instances
from paasd.run.retire import Retirement
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_LAST_CHANGES = 10.0
"""Seconds that changes past their switch get to end when the daemon stops."""


class Deployer:
    """One per daemon. Holds who is deploying what; everything else it knows is in the database."""

    def __init__(
        self,
        apps: Apps,
        config_vars: ConfigVars,
        builder: Builder,
        releases: Releases,
        instances: Instances,
        retirement: Retirement,
        edge: Edge,
        go_live: GoLive,
        registries: Registries,
    ) -> None:
        self._apps = apps
        self._config_vars = config_vars
        self._builder = builder
        self._releases = releases
        self._instances = instances
        self._retirement = retirement
        self._edge = edge
        self._go_live = go_live
        self._registries = registries
        self._pushes = ActivePushes()
        self._switches = SwitchLocks()
        self._background: set[asyncio.Task[None]] = set()
        self._changes: set[asyncio.Task[Any]] = set()
        self._closing: Cancelled | None = None

    async def push(
        self, actor: Actor, app: App, push: Push, checkout: OpenCheckout, progress: Progress, gone: asyncio.Event
    ) -> Release | None:
        """Build and deploy one pushed revision; None when nothing that the app watches changed. Raises Superseded when
        a newer push to the app came, Cancelled when the pusher left (`gone`) or said so, or why it failed."""
        if self._closing:
            raise self._closing
        build = await self._builder.request(app, push)
        log = self._builder.open_log(build)
        progress.add(log.write)
        task = asyncio.current_task()
        assert task is not None
        active = ActivePush(build, task)
        watch = asyncio.create_task(active.end_when(gone))
        previous = self._pushes.begin(active)
        try:
            await failpoints.hit("build-requested")
            if previous is not None:
                await previous.make_way(push, progress)
            live_revision = await self._builder.revision_of(await self._releases.current(app))
            config = await self._config_vars.get(app)
            built = await self._builder.build(app, build, checkout, progress, config, live_revision)
            async with self._switches.of(app):
                app = replace(await self._apps.refresh(app), stopped=False)
                config = await self._config_vars.fill(actor, app, built.config_vars)
                release = await self._releases.from_build(app, built, config, actor.name)
                await failpoints.hit("release-created")
                await self._go_live(actor, app, release, progress, release_task=True, pass_switch=active.pass_switch)
            await self._registries.after_release(app, release, progress)
            self._later(self._builder.prune(app))
            return release
        except NothingToDeploy as nothing:
            progress.step(f"Not deployed: {nothing.detail}")
            return None
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
                self._pushes.finished(active)

    def cancel(self, app: App, number: int | None, reason: PaasdError) -> BuildRow:
        """End the app's push under way. Raises NotFound when there is none, Conflict when it is already live."""
        active = self._pushes.of(app)
        if active is None or number not in (None, active.build.number):
            raise NotFound(f"{app.name} has no build {number or ''} under way", hint=f"List them: builds {app.name}")
        if not active.end(reason):
            raise Conflict("too late to cancel: the new release is live", hint=f"Go back with: rollback {app.name}")
        return active.build

    async def reconfigure(self, actor: Actor, app: App, description: str, progress: Progress) -> Release | None:
        """A release with the app's present config vars, live without a gap. None when there is nothing to run yet."""
        async with self._changing(app):
            app = await self._apps.refresh(app)
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
            app = await self._apps.refresh(app)
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
            app = await self._apps.refresh(app)
            release = await self._releases.adopted(app, other, await self._config_vars.get(app), actor.name)
            await self._go_live(actor, app, release, progress)
            return release

    async def route_of(self, app: App) -> Route:
        """The route the database wants for an app."""
        return await self._go_live.route_of(app)

    async def sync_route(self, app: App, present: Mapping[str, Route]) -> None:
        """Correct the app's route at the edge. One that is being switched right now is left to its switch."""
        async with self._switches.if_free(app) as free:
            wanted = await self._present_route(app) if free else None
            if wanted and present.get(wanted.app) != wanted:
                await self._edge.set_route(wanted)

    async def _present_route(self, app: App) -> Route | None:
        """None for an app that was destroyed meanwhile."""
        try:
            return await self._go_live.route_of(await self._apps.refresh(app))
        except NotFound:
            return None

    def is_busy(self, app: App) -> bool:
        """Whether a push to the app, or a change of its release, is under way."""
        return self._pushes.of(app) is not None or self._switches.is_held(app)

    def undisturbed(self, app: App) -> AbstractAsyncContextManager[bool]:
        """Hold the app's switch lock, True; or False when its release is being changed right now."""
        return self._switches.if_free(app)

    def switch(self, app: App) -> asyncio.Lock:
        """The app's switch lock, for what must not happen while its release changes."""
        return self._switches.of(app)

    async def ensure_network(self, app: App) -> Project:
        return await self._go_live.network(app)

    async def restart(self, actor: Actor, app: App, progress: Progress) -> Release:
        """New instances of the live release in place of the old ones, without a gap; also starts a stopped app."""
        async with self._changing(app):
            app = replace(await self._apps.refresh(app), stopped=False)
            release = await self._live(app)
            await self._go_live(actor, app, release, progress)
            return release

    async def scale(self, actor: Actor, app: App, progress: Progress) -> None:
        """Make the live instances match the app's scale; those that fit already are left alone."""
        async with self._changing(app):
            app = await self._apps.refresh(app)
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

    def end_push(self, app: App, reason: PaasdError) -> ActivePush | None:
        """End the app's push under way. Returns it, if it could still be ended."""
        active = self._pushes.of(app)
        return active if active and active.end(reason) else None

    async def close(self) -> None:
        """End what is under way: pushes fail with a reason, retiring goes on after the next start."""
        self._closing = Cancelled("paasd is stopping", hint="Push again once it is back.")
        changes = list(self._changes)
        for change in changes:
            change.cancel()
        await self._pushes.end_all(self._closing)
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
            async with self._switches.of(app):
                yield
        except asyncio.CancelledError:
            if self._closing is None:
                raise
            task.uncancel()
            raise self._closing from None
        finally:
            self._changes.discard(task)

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
