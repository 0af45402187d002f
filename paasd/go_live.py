"""Makes a release the live one: new instances beside the old, one switch, then the old ones retire.

Everything before `_switch` can fail or be cancelled and leaves the old release serving. `_switch` is short, shielded
and commits in one transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from paasd import failpoints
from paasd.apps import Apps
from paasd.config import Config
from paasd.database import Database, Transaction
from paasd.deployments import Deployment, Deployments, finish
from paasd.drivers.base import Driver
from paasd.errors import Cancelled, PaasdError, Superseded
from paasd.models import Actor, App, Endpoint, Project, Release, Route, Status
from paasd.progress import Progress
from paasd.projects import Projects
from paasd.release import Releases
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.run.firewall import Firewall
from paasd.run.health import check_of, merged
from paasd.run.instances import InstanceRow, Instances, mark, network_name
from paasd.run.retire import Retirement
from paasd.run.rollout import Launch, Rollout

PassSwitch = Callable[[], None]
OnLive = Callable[[Transaction], Awaitable[None]]


class GoLive:
    """Callers hold the app's switch lock, so that only one release of an app goes live at a time."""

    def __init__(
        self,
        database: Database,
        config: Config,
        apps: Apps,
        projects: Projects,
        releases: Releases,
        deployments: Deployments,
        driver: Driver,
        instances: Instances,
        rollout: Rollout,
        retirement: Retirement,
        domains: Domains,
        edge: Edge,
        firewall: Firewall,
    ) -> None:
        self._database = database
        self._config = config
        self._apps = apps
        self._projects = projects
        self._releases = releases
        self._deployments = deployments
        self._driver = driver
        self._instances = instances
        self._rollout = rollout
        self._retirement = retirement
        self._domains = domains
        self._edge = edge
        self._firewall = firewall

    async def __call__(
        self,
        actor: Actor,
        app: App,
        release: Release,
        progress: Progress,
        *,
        keep_fitting: bool = False,
        release_task: bool = False,
        pass_switch: PassSwitch = lambda: None,
        on_live: OnLive | None = None,
    ) -> None:
        """`app.stopped` says how it shall be afterwards: a stopped app gets the release, but no instances.

        `keep_fitting` leaves live instances of this very release alone; `pass_switch` is called just before the switch
        and may still refuse it by raising; `on_live` joins the transaction that makes the release live.
        """
        deployment = await self._deployments.begin(app, release, actor.name)
        try:
            project = await self.network(app)
            url = await self._domains.url(app)
            if release_task:
                await self._rollout.release_task(app, project, release, url, progress)
            await failpoints.hit("after-release-task")
            await self._deployments.phase(deployment, "starting")
            live = await self._instances.of(app, "live")
            rows = []
            if not app.stopped:
                rows = await self._instances.plan(app, project, release, deployment.id, app.scale)
            keep = _fitting(live, rows) if keep_fitting else []
            rows = await self._drop_kept(rows, keep)
            progress.step(f"Deploying {app.name} {release.version}{_listed(rows)}")
            host = (await self._domains.of(app))[0]
            checked = replace(release, checks=merged(release.checks, await self._apps.checks(app)))
            launch = Launch(app, project, checked, rows, url, host)
            async with self._rollout.started(launch, progress):
                await failpoints.hit("before-switch")
                pass_switch()
                await _uninterrupted(self._switch(app, release, deployment, rows, keep, live, on_live))
        except BaseException as error:
            await asyncio.shield(self._record_failure(app, deployment, error))
            raise
        if app.stopped:
            progress.heading(
                f"{app.name} {release.version} is set; the app is stopped, start it with: ps:start {app.name}"
            )
        else:
            progress.heading(f"{app.name} {release.version} is live:")
            progress.detail(url)

    async def _switch(
        self,
        app: App,
        release: Release,
        deployment: Deployment,
        rows: Sequence[InstanceRow],
        keep: Sequence[InstanceRow],
        live: Sequence[InstanceRow],
        on_live: OnLive | None,
    ) -> None:
        """The edge first, then one transaction; when that fails the edge gets the old endpoints back."""
        await self._deployments.phase(deployment, "switching")
        before = await self.route_of(app)
        old = [row for row in live if row not in keep]
        await self._edge.set_route(Route(app.name) if app.stopped else self._route(app, release, [*keep, *rows]))
        await failpoints.hit("after-route")
        retire_at = time.time() + self._config.run.drain
        try:
            async with self._database.transaction() as tx:
                for row in rows:
                    await mark(tx, row.name, "live")
                for row in old:
                    await mark(tx, row.name, "retiring", retire_at)
                await tx.execute(
                    "UPDATE apps SET release_id = ?, stopped = ? WHERE id = ?", release.id, int(app.stopped), app.id
                )
                await finish(tx, app, deployment, Status.SUCCEEDED)
                if on_live:
                    await on_live(tx)
        except BaseException:
            await self._edge.set_route(before)
            raise
        await failpoints.hit("after-commit")
        for row in await self._instances.of(app, "retiring"):
            self._retirement.begin(row)

    async def take_down(self, app: App, rows: Sequence[InstanceRow]) -> None:
        """The app is stopped and its instances are retiring, in one transaction; the reconciler finishes what a crash
        leaves of the rest."""
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE apps SET stopped = 1 WHERE id = ?", app.id)
            for row in rows:
                await mark(tx, row.name, "retiring", time.time())
        await self._edge.set_route(Route(app.name))

    async def route_of(self, app: App) -> Route:
        """The route the database wants for an app."""
        release = await self._releases.current(app)
        if release is None or app.stopped:
            return Route(app.name)
        return self._route(app, release, await self._instances.of(app, "live"))

    def _route(self, app: App, release: Release, rows: Sequence[InstanceRow]) -> Route:
        usual = release.port or self._config.run.port
        port = check_of(release, "web", usual).port or usual
        web = sorted((row for row in rows if row.process_type == "web"), key=lambda row: row.number)
        return Route(app.name, tuple(Endpoint(row.address, port) for row in web), release.number)

    async def network(self, app: App) -> Project:
        """The app's project, its network made if it is missing."""
        project = await self._projects.get(app.organization_id, app.project_id)
        subnet = await self._driver.ensure_network(
            network_name(self._config.label, project),
            [project.subnet] if project.subnet else self._config.run.subnets(),
            [p.subnet for p in await self._projects.all() if p.subnet and p.id != project.id],
        )
        if subnet != project.subnet:
            await self._projects.set_subnet(project.id, subnet)
            await self.protect()
        return await self._projects.get(app.organization_id, app.project_id)

    async def protect(self) -> None:
        """Firewall rules for the networks of all projects, before anything runs in them."""
        subnets = sorted(p.subnet for p in await self._projects.all() if p.subnet)
        await self._firewall.apply(subnets, [self._config.http.port, self._config.http.https_port])

    async def _drop_kept(self, rows: Sequence[InstanceRow], keep: Sequence[InstanceRow]) -> list[InstanceRow]:
        kept = {(row.process_type, row.number) for row in keep}
        spare = [row for row in rows if (row.process_type, row.number) in kept]
        await self._instances.forget([row.name for row in spare])
        return [row for row in rows if row not in spare]

    async def _record_failure(self, app: App, deployment: Deployment, error: BaseException) -> None:
        status = Status.FAILED
        if isinstance(error, Superseded):
            status = Status.SUPERSEDED
        elif isinstance(error, Cancelled | asyncio.CancelledError):
            status = Status.CANCELLED
        reason = error.detail if isinstance(error, PaasdError) else type(error).__name__
        await self._deployments.fail(app, deployment, status, reason)


def _fitting(live: Sequence[InstanceRow], wanted: Sequence[InstanceRow]) -> list[InstanceRow]:
    """The live instances that the wanted ones would only repeat."""
    keys = {(row.release_id, row.process_type, row.number) for row in wanted}
    return [row for row in live if (row.release_id, row.process_type, row.number) in keys]


def _listed(rows: Sequence[InstanceRow]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.process_type] = counts.get(row.process_type, 0) + 1
    return " (" + ", ".join(f"{name}={count}" for name, count in counts.items()) + ")" if counts else ""


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work` whatever happens to the caller's task: a switch is either made or undone, and the caller must know
    which. A cancellation that arrives meanwhile is dropped, since it came too late."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current:
                current.uncancel()
    task.result()
