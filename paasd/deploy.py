"""The main job, top to bottom: a push becomes a build, a release, healthy instances and a route.

    push → source → build → release → run → route

`Deployer.push` reads in that order; the last two are told in `go_live.py`. Pushes to one app take turns and the newest
wins; what changes the live release of an app holds its switch lock. Changes that nobody pushed are in `changes.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from paasd import failpoints
from paasd.active_push import ActivePush, ActivePushes
from paasd.admission import Admission
from paasd.apps import Apps
from paasd.build.builder import Builder, OpenCheckout
from paasd.build.builds import BuildRow
from paasd.build.registry import Registries
from paasd.config_vars import ConfigVars
from paasd.deployments import Deployment, Deployments
from paasd.errors import Cancelled, Conflict, NotFound, NothingToDeploy, PaasdError
from paasd.go_live import Change, GoLive
from paasd.models import Actor, App, Phase, Push, Release
from paasd.progress import Progress
from paasd.release import Releases
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)


class Deployer:
    """One per daemon. Holds who is pushing what; everything else it knows is in the database."""

    def __init__(
        self,
        apps: Apps,
        config_vars: ConfigVars,
        builder: Builder,
        releases: Releases,
        deployments: Deployments,
        admission: Admission,
        go_live: GoLive,
        registries: Registries,
        switches: SwitchLocks,
    ) -> None:
        self._apps = apps
        self._config_vars = config_vars
        self._builder = builder
        self._releases = releases
        self._deployments = deployments
        self._admission = admission
        self._go_live = go_live
        self._registries = registries
        self._switches = switches
        self._pushes = ActivePushes()
        self._background: set[asyncio.Task[None]] = set()
        self._closing: Cancelled | None = None

    async def push(
        self,
        actor: Actor,
        app: App,
        push: Push,
        checkout: OpenCheckout,
        progress: Progress,
        gone: asyncio.Event,
        *,
        ignore_windows: bool = False,
    ) -> Release | None:
        """Build and deploy one pushed revision; None when nothing that the app watches changed. Raises Superseded when
        a newer push to the app came, Cancelled when the pusher left (`gone`) or said so, or why it failed."""
        if self._closing:
            raise self._closing
        await self._admission.require(app, ignore_windows=ignore_windows)
        build = await self._builder.request(app, push)
        log = self._builder.open_log(build)
        progress.add(log.write)
        task = asyncio.current_task()
        assert task is not None
        active = ActivePush(build, task)
        watch = asyncio.create_task(active.end_when(gone))
        previous = self._pushes.begin(active)
        try:
            async with self._deployments.attempt(actor, app, build_id=build.id) as deployment:
                with active.told():
                    await failpoints.hit("build-requested")
                    if previous is not None:
                        await previous.make_way(push, progress)
                    release = await self._deploy(actor, app, active, deployment, checkout, progress)
            await self._registries.after_release(app, release, progress)
            self._later(self._builder.prune(app))
            return release
        except NothingToDeploy as nothing:
            progress.step(f"Not deployed: {nothing.detail}")
            return None
        finally:
            watch.cancel()
            active.finish()
            try:
                await asyncio.shield(self._builder.settle(app, build, active.reason))
                progress.remove(log.write)
                await log.close()
            finally:
                self._pushes.finished(active)

    async def _deploy(
        self,
        actor: Actor,
        app: App,
        active: ActivePush,
        deployment: Deployment,
        checkout: OpenCheckout,
        progress: Progress,
    ) -> Release:
        live_revision = await self._builder.revision_of(await self._releases.current(app))
        config = await self._config_vars.get(app)

        async def building() -> None:
            await self._deployments.enter(app, deployment, Phase.BUILDING)

        built = await self._builder.build(app, active.build, checkout, progress, config, live_revision, building)
        async with self._switches.of(app):
            app = replace(await self._apps.refresh(app), stopped=False)
            self._admission.require_unlocked(app)
            config = await self._config_vars.fill(actor, app, built.config_vars)
            release = await self._releases.from_build(app, built, config, actor.name)
            await failpoints.hit("release-created")
            change = Change(tasks=True, pass_switch=active.pass_switch)
            await self._go_live(app, release, deployment, progress, change)
        return release

    def cancel(self, app: App, number: int | None, reason: PaasdError) -> BuildRow:
        """End the app's push under way. Raises NotFound when there is none, Conflict when it is already live."""
        active = self._pushes.of(app)
        if active is None or number not in (None, active.build.number):
            raise NotFound(f"{app.name} has no build {number or ''} under way", hint=f"List them: builds {app.name}")
        if not active.end(reason):
            raise Conflict("too late to cancel: the new release is live", hint=f"Go back with: rollback {app.name}")
        return active.build

    def end_push(self, app: App, reason: PaasdError) -> ActivePush | None:
        """End the app's push under way. Returns it, if it could still be ended."""
        active = self._pushes.of(app)
        return active if active and active.end(reason) else None

    def is_pushed_to(self, app: App) -> bool:
        """Whether a push to the app is under way."""
        return self._pushes.of(app) is not None

    async def close(self, reason: Cancelled) -> None:
        """End what is under way: pushes fail with the reason."""
        self._closing = reason
        await self._pushes.end_all(reason)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception():
            _log.error("background work failed", exc_info=task.exception())
