"""Changes of what is live that nobody pushed: config vars, rollbacks, scale, restarts, old builds, promotions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from paasd import failpoints
from paasd.active_push import Active
from paasd.admission import Admission
from paasd.apps import Apps
from paasd.build.builder import Builder
from paasd.config_vars import ConfigVars
from paasd.database import Transaction
from paasd.deployments import Deployments
from paasd.errors import Cancelled, Conflict, PaasdError
from paasd.go_live import Change, GoLive, OnLive
from paasd.models import Actor, App, Release
from paasd.progress import Progress
from paasd.release import Releases
from paasd.run.instances import Instances
from paasd.run.retire import Retirement
from paasd.switch_locks import SwitchLocks

_LAST_CHANGES = 10.0
"""Seconds that changes past their switch get to end when the daemon stops."""


class Changes:
    """One per daemon. Every change holds the app's switch lock."""

    def __init__(
        self,
        apps: Apps,
        config_vars: ConfigVars,
        builder: Builder,
        releases: Releases,
        deployments: Deployments,
        admission: Admission,
        instances: Instances,
        retirement: Retirement,
        go_live: GoLive,
        switches: SwitchLocks,
    ) -> None:
        self._apps = apps
        self._config_vars = config_vars
        self._builder = builder
        self._releases = releases
        self._deployments = deployments
        self._admission = admission
        self._instances = instances
        self._retirement = retirement
        self._go_live = go_live
        self._switches = switches
        self._under_way: dict[Active, tuple[str, asyncio.Task[None]]] = {}
        self._closing: Cancelled | None = None

    async def reconfigure(self, actor: Actor, app: App, description: str, progress: Progress) -> Release | None:
        """A release with the app's present config vars, live without a gap. None when there is nothing to run yet."""
        async with self._changing(app) as active:
            app = await self._apps.refresh(app)
            current = await self._releases.current(app)
            if current is None:
                return None
            config = await self._config_vars.get(app)
            release = await self._releases.with_config(app, current, config, actor.name, description)
            return await self._deploy(actor, app, release, progress, active)

    async def rollback(
        self,
        actor: Actor,
        app: App,
        number: int | None,
        progress: Progress,
        *,
        leaving: Release | None = None,
        also: OnLive | None = None,
    ) -> Release:
        """Everything of an old release, as a new one. Raises NotFound when it, or its image, is gone; Conflict when
        `leaving` is given and not live any more. `also` joins the transaction that makes it live."""
        async with self._changing(app) as active:
            app = await self._apps.refresh(app)
            if leaving is not None and app.release_id != leaving.id:
                raise Conflict(f"{leaving.version} is not live any more")
            if leaving is None:
                self._admission.require_unlocked(app)
            by_number, previous = self._releases.by_number, self._releases.before_current
            old = await (by_number(app, number) if number else previous(app))
            await self._builder.require_image(old)
            release = await self._releases.from_old(app, old, actor.name)
            progress.step(f"Rolling back to {old.version} as {release.version}")
            restore = self._config_vars.restoring(app, release.config)

            async def on_live(tx: Transaction) -> None:
                await restore(tx)
                if also:
                    await also(tx)

            change = Change(watched=False, exempt=leaving is not None, on_live=on_live)
            return await self._deploy(actor, app, release, progress, active, change)

    async def redeploy(
        self, actor: Actor, app: App, build: int, progress: Progress, *, ignore_windows: bool = False
    ) -> Release:
        """An old build with the present config vars. Raises NotFound when it, or its image, is gone."""
        async with self._changing(app) as active:
            app = replace(await self._apps.refresh(app), stopped=False)
            await self._admission.require(app, ignore_windows=ignore_windows)
            old = await self._releases.of_build(app, build)
            await self._builder.require_image(old)
            config = await self._config_vars.get(app)
            release = await self._releases.with_config(app, old, config, actor.name, f"Deploy build {build} again")
            return await self._deploy(actor, app, release, progress, active, Change(tasks=True))

    async def retry(
        self, actor: Actor, app: App, number: int | None, progress: Progress, *, ignore_windows: bool = False
    ) -> Release:
        """The release of a deployment (the newest, unless `number` is given) that did not succeed, once more. Raises
        NotFound, or Conflict when it did succeed or was never built."""
        async with self._changing(app) as active:
            app = replace(await self._apps.refresh(app), stopped=False)
            await self._admission.require(app, ignore_windows=ignore_windows)
            release = await self._releases.get(app, await self._deployments.failed_release(app, number))
            await self._builder.require_image(release)
            progress.step(f"Deploying {release.version} again")
            return await self._deploy(actor, app, release, progress, active, Change(tasks=True))

    async def adopt(self, actor: Actor, app: App, other: Release, progress: Progress) -> Release:
        """Make the image of another app's release the first release of `app`, a clone."""
        async with self._changing(app) as active:
            app = await self._apps.refresh(app)
            config = await self._config_vars.get(app)
            release = await self._releases.adopted(app, other, config, actor.name, "Clone")
            return await self._deploy(actor, app, release, progress, active)

    async def promote(
        self, actor: Actor, source: App, app: App, progress: Progress, *, ignore_windows: bool = False
    ) -> Release:
        """The live image of `source`, with the config vars of `app`. Raises Conflict when there is none."""
        async with self._changing(app) as active:
            app = replace(await self._apps.refresh(app), stopped=False)
            await self._admission.require(app, ignore_windows=ignore_windows)
            other = await self._live(await self._apps.refresh(source))
            config = await self._config_vars.get(app)
            told = f"Promote {source.name} {other.version}"
            release = await self._releases.adopted(app, other, config, actor.name, told)
            progress.step(f"Promoting {source.name} {other.version} to {app.name} as {release.version}")
            return await self._deploy(actor, app, release, progress, active, Change(tasks=True))

    async def restart(self, actor: Actor, app: App, progress: Progress) -> Release:
        """New instances of the live release in place of the old ones, without a gap; also starts a stopped app."""
        async with self._changing(app) as active:
            app = replace(await self._apps.refresh(app), stopped=False)
            release = await self._live(app)
            return await self._deploy(actor, app, release, progress, active, Change(watched=False))

    async def scale(self, actor: Actor, app: App, progress: Progress) -> None:
        """Make the live instances match the app's scale; those that fit already are left alone."""
        async with self._changing(app) as active:
            app = await self._apps.refresh(app)
            release = await self._releases.current(app)
            if release is None or app.stopped:
                return
            await self._deploy(actor, app, release, progress, active, Change(keep_fitting=True))

    async def stop(self, app: App, progress: Progress) -> None:
        """Take the app out of service; its release stays what `ps:start` brings back."""
        async with self._changing(app):
            rows = await self._instances.of(app)
            await self._go_live.take_down(app, rows)
            for row in await self._instances.of(app):
                self._retirement.begin(row)
            await self._retirement.finish({row.name for row in rows})
            progress.detail(f"{len(rows)} instances stopped")

    def cancel(self, app: App, reason: PaasdError) -> bool:
        """End the change of the app under way, if there is one and it can still be ended."""
        return any([active.end(reason) for active, (app_id, _) in self._under_way.items() if app_id == app.id])

    async def close(self, reason: Cancelled) -> None:
        """End what is under way; retiring goes on after the next start."""
        self._closing = reason
        for active in list(self._under_way):
            active.end(reason)
        if tasks := [task for _, task in self._under_way.values()]:
            await asyncio.wait(tasks, timeout=_LAST_CHANGES)
        await self._retirement.close()

    async def _deploy(
        self,
        actor: Actor,
        app: App,
        release: Release,
        progress: Progress,
        active: Active,
        change: Change = Change(),  # noqa: B008 - frozen
    ) -> Release:
        async with self._deployments.attempt(actor, app) as deployment:
            with active.told():
                change = replace(change, pass_switch=active.pass_switch)
                await self._go_live(app, release, deployment, progress, change)
        return release

    @asynccontextmanager
    async def _changing(self, app: App) -> AsyncIterator[Active]:
        """Hold the app's switch lock for a change that `cancel()` and `close()` end with their reasons."""
        if self._closing:
            raise self._closing
        await failpoints.begin()
        task = asyncio.current_task()
        assert task is not None
        active = Active(task)
        self._under_way[active] = app.id, task
        try:
            with active.told():
                async with self._switches.of(app):
                    yield active
        finally:
            active.finish()
            del self._under_way[active]

    async def _live(self, app: App) -> Release:
        release = await self._releases.current(app)
        if release is None:
            raise Conflict(f"{app.name} has not been deployed yet", hint=f"Push it: git push paasd main ({app.name})")
        return release
