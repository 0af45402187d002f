"""Makes a release the live one: new instances beside the old, one switch, then the old ones retire.

Everything before `_switch` can fail or be cancelled and leaves the old release serving. `_switch` is short, shielded
and commits in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from paasd import failpoints
from paasd.apps import Apps
from paasd.canary import Canary
from paasd.checks import merged
from paasd.clock import steady
from paasd.database import Database, Transaction, now
from paasd.deploy_settings import DeploymentSettings, Strategy
from paasd.deployments import Deployment, Deployments, succeed
from paasd.edge_values import Route
from paasd.errors import EdgeError
from paasd.models import App, Phase, Release
from paasd.progress import Progress
from paasd.quota_gate import Asking
from paasd.quotas import Quotas
from paasd.recreate import Recreate
from paasd.release import Releases
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.route.traffic import Traffic
from paasd.routing import Routing
from paasd.run.instances import Farewell, InstanceRow, Instances, mark_live, mark_retiring, wanted_instances
from paasd.run.networks import Networks
from paasd.run.retire import Retirement
from paasd.run.rollout import Launch, Rollout
from paasd.run.tasks import Task, Tasks, before_start, before_switch
from paasd.storage import Storage, mounts_for

_log = logging.getLogger(__name__)

PassSwitch = Callable[[], None]
OnLive = Callable[[Transaction], Awaitable[None]]


@dataclass(frozen=True)
class Change:
    """What a deployment is beside its release."""

    keep_fitting: bool = False
    """Live instances of this very release are left alone."""
    tasks: bool = False
    """The release is new code: its release task and scripts run."""
    watched: bool = True
    """Crashes and errors soon afterwards bring the release before back."""
    exempt: bool = False
    """No quota keeps it from being made: what is live has turned out to be bad."""
    pass_switch: PassSwitch = lambda: None
    """Called just before the switch; may still refuse it by raising."""
    on_live: OnLive | None = None
    """Joins the transaction that makes the release live."""


_PLAIN = Change()


@dataclass(frozen=True)
class _Switch:
    """What changes hands at once."""

    launch: Launch
    deployment: Deployment
    keep: Sequence[InstanceRow]
    old: Sequence[InstanceRow]
    change: Change


class GoLive:
    """Callers hold the app's switch lock, so that only one release of an app goes live at a time."""

    def __init__(
        self,
        database: Database,
        apps: Apps,
        releases: Releases,
        routing: Routing,
        deployments: Deployments,
        settings: DeploymentSettings,
        instances: Instances,
        networks: Networks,
        storage: Storage,
        tasks: Tasks,
        rollout: Rollout,
        recreate: Recreate,
        canary: Canary,
        retirement: Retirement,
        domains: Domains,
        edge: Edge,
        quotas: Quotas,
    ) -> None:
        self._database = database
        self._apps = apps
        self._releases = releases
        self._routing = routing
        self._deployments = deployments
        self._settings = settings
        self._instances = instances
        self._networks = networks
        self._storage = storage
        self._tasks = tasks
        self._rollout = rollout
        self._recreate = recreate
        self._canary = canary
        self._retirement = retirement
        self._domains = domains
        self._edge = edge
        self._quotas = quotas

    async def __call__(
        self, app: App, release: Release, deployment: Deployment, progress: Progress, change: Change = _PLAIN
    ) -> None:
        """`app.stopped` says how it shall be afterwards: a stopped app gets the release, but no instances."""
        settings, live = await self._settings.of(app), await self._instances.of(app, "live")
        strategy = _strategy(settings.strategy, change, live)
        asking = Asking(app.organization_id, app.project, deployment.created_by, app.name)
        free = app.stopped or change.exempt
        await self._deployments.release(
            deployment, release, strategy, asking=None if free else asking, stopped=app.stopped
        )
        for line in await self._quotas.warnings(app):
            progress.warn(line)
        project, url = await self._networks.ensure(app), await self._domains.url(app)
        checked = replace(release, checks=merged(release.checks, await self._apps.checks(app)))
        mounts = await self._storage.ready(app, release)
        launch = Launch(app, project, checked, (), url, await self._domains.main(app), settings, mounts)
        if change.tasks:
            await self._before_start(launch, deployment, progress)
        await self._deployments.enter(app, deployment, Phase.STARTING)
        keep = _fitting(live, release, app.scale) if change.keep_fitting else []
        old = [row for row in live if row not in keep]
        await self._hand_over(_Switch(launch, deployment, keep, old, change), strategy, progress)
        self._tell(launch, progress)

    async def _before_start(self, launch: Launch, deployment: Deployment, progress: Progress) -> None:
        await self._deployments.enter(launch.app, deployment, Phase.RELEASING)
        for task in before_start(launch.release, first=launch.app.postdeploy_at is None):
            await self._run(launch, task, progress)
        await failpoints.hit("after-release-task")

    async def _run(self, launch: Launch, task: Task, progress: Progress) -> None:
        timeout = launch.settings.script_timeout
        mounts = mounts_for(launch.mounts, task.process)
        await self._tasks.run(launch.app, launch.project, launch.release, launch.url, task, mounts, timeout, progress)

    async def _hand_over(self, switch: _Switch, strategy: Strategy, progress: Progress) -> None:
        app = switch.launch.app

        async def enter(phase: Phase) -> None:
            await self._deployments.enter(app, switch.deployment, phase)

        async with AsyncExitStack() as stack:
            awake = [row for row in switch.old if not row.asleep]
            if strategy is Strategy.RECREATE and awake:
                old = await self._launch_of(switch.launch, awake)
                await stack.enter_async_context(self._recreate.vacated(old, progress))
            launch = await self._planned(switch)
            progress.step(f"Deploying {app.name} {launch.release.version}{_listed(launch.rows)}")
            await stack.enter_async_context(self._rollout.started(launch, progress, partial(enter, Phase.CHECKING)))
            if switch.change.tasks:
                for task in before_switch(launch.release):
                    await self._run(launch, task, progress)
            if strategy is Strategy.CANARY:
                await self._canary.walk(launch, progress, partial(enter, Phase.CANARY))
            await failpoints.hit("before-switch")
            switch.change.pass_switch()
            await _uninterrupted(self._switch(replace(switch, launch=launch)))

    async def _planned(self, switch: _Switch) -> Launch:
        """With the rows of its new instances. Whoever calls it starts or removes them before awaiting anything else."""
        launch, app = switch.launch, switch.launch.app
        if app.stopped:
            return launch
        rows = await self._instances.plan(
            app, launch.project, launch.release, switch.deployment.id, app.scale, switch.keep
        )
        return replace(launch, rows=rows)

    async def _launch_of(self, like: Launch, rows: Sequence[InstanceRow]) -> Launch:
        """What is live now, as it would be started again."""
        release = await self._releases.get(like.app, rows[0].release_id)
        checked = replace(release, checks=merged(release.checks, await self._apps.checks(like.app)))
        return replace(like, release=checked, rows=rows)

    async def _switch(self, switch: _Switch) -> None:
        """The edge first, then one transaction; when that fails the edge gets the old endpoints back."""
        launch, app = switch.launch, switch.launch.app
        await self._deployments.enter(app, switch.deployment, Phase.SWITCHING)
        before = await self._routing.of(app)
        route = self._routing.to(app, launch.release, [*switch.keep, *launch.rows])
        # Asked before the first request to the new release, or its errors would count as the old one's; not waited for
        # before the route changes, since the edge takes a tenth of a second to add up.
        asked = asyncio.create_task(self._traffic(switch))
        try:
            await self._edge.set_route(Route(app.name) if app.stopped else route)
            await failpoints.hit("after-route")
            traffic = await asked
            async with self._database.transaction() as tx:
                await self._commit(tx, switch, traffic)
        except BaseException:
            asked.cancel()
            await self._switch_back(before)
            raise
        await failpoints.hit("after-commit")
        for row in await self._instances.of(app, "retiring"):
            self._retirement.begin(row)

    async def _traffic(self, switch: _Switch) -> Traffic | None:
        """What the release before had, where the new one is watched."""
        if not _is_watched(switch):
            return None
        try:
            return Traffic.of(switch.launch.app.name, await self._edge.counters())
        except EdgeError:
            return None  # the watch begins to count later then

    async def _switch_back(self, route: Route) -> None:
        """An edge that cannot be told now is told by the reconciler; why the switch failed must not be hidden by it."""
        try:
            await self._edge.set_route(route)
        except Exception as error:
            _log.warning("%s: the edge does not take the old route back yet: %s", route.app, error)

    async def _commit(self, tx: Transaction, switch: _Switch, traffic: Traffic | None) -> None:
        app, settings, change, at = switch.launch.app, switch.launch.settings, switch.change, steady()
        farewell = Farewell(at + settings.drain, at + max(settings.drain, settings.stream_drain), settings.stop_timeout)
        for row in switch.launch.rows:
            await mark_live(tx, row.name)
        for row in switch.old:
            await mark_retiring(tx, row.name, farewell)
        await tx.execute(
            "UPDATE apps SET release_id = ?, stopped = ?, postdeploy_at = coalesce(postdeploy_at, ?) WHERE id = ?",
            switch.launch.release.id,
            int(app.stopped),
            now() if change.tasks else None,
            app.id,
        )
        watch_until = at + settings.watch if _is_watched(switch) else None
        baseline = vars(traffic) if traffic else None
        draining = bool(switch.old)
        await succeed(tx, app, switch.deployment, draining=draining, watch_until=watch_until, baseline=baseline)
        if change.on_live:
            await change.on_live(tx)

    def _tell(self, launch: Launch, progress: Progress) -> None:
        app, version = launch.app, launch.release.version
        if app.stopped:
            progress.heading(f"{app.name} {version} is set; the app is stopped, start it with: ps:start {app.name}")
            return
        progress.heading(f"{app.name} {version} is live:")
        progress.detail(launch.url)

    async def take_down(self, app: App, rows: Sequence[InstanceRow]) -> None:
        """The app is stopped and its instances are retiring, in one transaction; the reconciler finishes what a crash
        leaves of the rest."""
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE apps SET stopped = 1 WHERE id = ?", app.id)
            for row in rows:
                await mark_retiring(tx, row.name, Farewell.now())
        await self._edge.set_route(Route(app.name))


def _is_watched(switch: _Switch) -> bool:
    change, launch = switch.change, switch.launch
    return change.watched and not change.keep_fitting and not launch.app.stopped and bool(launch.settings.watch)


def _strategy(wanted: Strategy, change: Change, live: Sequence[InstanceRow]) -> Strategy:
    """Scaling never stops what runs, what was live before needs no trial, and what sleeps gives a canary no measure."""
    untried = not change.watched or any(row.asleep for row in live)
    if change.keep_fitting or (wanted is Strategy.CANARY and untried):
        return Strategy.ROLLING
    return wanted


def _fitting(live: Sequence[InstanceRow], release: Release, scale: Mapping[str, int]) -> list[InstanceRow]:
    """The live instances that are as they would be made anew; those asleep do not even run."""
    wanted = wanted_instances(release, scale)
    fitting = (row for row in live if row.release_id == release.id and (row.process_type, row.number) in wanted)
    return [row for row in fitting if not row.asleep]


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
