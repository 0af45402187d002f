"""Makes what runs equal to what the database wants: at start, when the engine reports something, and on a timer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from paasd.app_sites import AppSites
from paasd.apps import Apps
from paasd.build.builds import Builds
from paasd.clock import steady
from paasd.config import Config
from paasd.deploy_settings import DeploymentSettings, Strategy
from paasd.deployments import Deployments
from paasd.drivers.base import Driver, Seen
from paasd.edge_values import Route
from paasd.errors import EdgeError, EngineUnavailable, NotFound, PaasdError
from paasd.models import App, InstanceState, Release
from paasd.projects import Projects
from paasd.release import Releases
from paasd.revival import Revival
from paasd.route.edge import Edge
from paasd.route.serving import Serving
from paasd.routing import Routing
from paasd.run.instances import InstanceRow, Instances, network_name
from paasd.run.networks import Networks
from paasd.run.retire import Retirement
from paasd.sleep import Sleep
from paasd.source.repositories import Repositories
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_INTERVAL = 15.0
_EDGE_INTERVAL = 1.0
_SETTLE = 0.3
"""Seconds after an engine event before looking, so that one restart is one look."""
_SWEEP = 300.0
"""Seconds between two looks at all repositories for what killed pushes left, which may lie there for an hour."""
_STRANGER_TIMEOUT = 10
_DIED = "the daemon stopped while this was under way; the release that was live before still is"


class Reconciler:
    def __init__(
        self,
        config: Config,
        apps: Apps,
        projects: Projects,
        releases: Releases,
        builds: Builds,
        deployments: Deployments,
        instances: Instances,
        retirement: Retirement,
        driver: Driver,
        edge: Edge,
        repositories: Repositories,
        sites: AppSites,
        routing: Routing,
        switches: SwitchLocks,
        networks: Networks,
        settings: DeploymentSettings,
        revival: Revival,
        sleep: Sleep,
        serving: Serving,
    ) -> None:
        self._config = config
        self._apps = apps
        self._projects = projects
        self._releases = releases
        self._builds = builds
        self._deployments = deployments
        self._instances = instances
        self._retirement = retirement
        self._driver = driver
        self._edge = edge
        self._repositories = repositories
        self._app_sites = sites
        self._routing = routing
        self._switches = switches
        self._project_networks = networks
        self._settings = settings
        self._revival = revival
        self._sleep = sleep
        self._serving = serving
        self._present: Mapping[str, Seen] | None = None
        """What the engine has, as of this pass; None when it does not say."""
        self._strange: Sequence[str] = ()
        self._swept = -math.inf
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._troubles: dict[str, str] = {}
        """What goes wrong, by step."""
        self._released: dict[str | None, Release] = {}
        """Live releases, without their config vars: they never change."""

    async def recover(self) -> None:
        """Once at start, before anything can be asked for: finish or undo what a killed daemon left half done."""
        await self._builds.abandon_unfinished(_DIED)
        await self._deployments.abandon_unfinished(_DIED)
        for app in await self._apps.all():
            stale = await self._instances.of(app, "new")
            await self._instances.retire([row.name for row in stale])
        with contextlib.suppress(EdgeError):
            await self._sleep.recover()
        with contextlib.suppress(EngineUnavailable):
            await self._driver.remove_one_offs()

    async def start(self) -> None:
        """Bring everything in order, then keep it so in the background."""
        await self.settle()
        self._tasks = [asyncio.create_task(work()) for work in (self._watch, self._watch_edge, self._loop)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """One pass over everything. What fails is logged and tried again in the next pass."""
        # iptables takes its time with many networks, and only containers need to come after it.
        await asyncio.gather(
            self._steps(self._firewall), self._steps(self._edge_up, self._routes, self._sites, self._certificates)
        )
        await self._steps(self._look, self._containers, self._strangers, self._one_offs, self._networks, self._files)

    async def _steps(self, *steps: Callable[[], Awaitable[object]]) -> None:
        for step in steps:
            await self._attempt(step.__name__.strip("_"), step)

    async def _attempt(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Whatever goes wrong must not end the reconciler. It is written down once, not in every pass."""
        before = self._troubles.pop(name, "")
        try:
            await step()
        except PaasdError as error:
            self._troubles[name] = error.detail
            if before != error.detail:
                _log.warning("reconciling (%s): %s", name, error.detail)
        except Exception:
            _log.exception("reconciling (%s) failed", name)

    async def _watch(self) -> None:
        """Turn engine events into passes; a lost engine is looked for again."""
        while True:
            await self._attempt("events", self._events)
            await asyncio.sleep(1)
            self._wake.set()

    async def _events(self) -> None:
        async for event in self._driver.events():
            if event.action in ("die", "oom", "destroy", "start"):
                self._wake.set()

    async def _watch_edge(self) -> None:
        """A dead Nginx is everybody's outage, so it does not wait for the timer."""
        while True:
            await asyncio.sleep(_EDGE_INTERVAL)
            await self._attempt("edge_up", self._edge_up)

    async def _loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await self._wake.wait()
            await asyncio.sleep(_SETTLE)
            self._wake.clear()
            await self.settle()

    async def _edge_up(self) -> None:
        if await self._edge.ensure_running():
            _log.warning("Nginx was not running and was started again")
            self._wake.set()  # what it read from its files may be old

    async def _firewall(self) -> None:
        await self._project_networks.protect()

    async def _routes(self) -> None:
        """Before the sites, so that none comes up without a route; those that no app has go after them. Each by itself:
        what is wrong with one app must not be everybody's."""
        present = await self._edge.routes()
        apps = await self._apps.all()
        astray = await self._astray(apps, present)
        for app in astray:
            await self._attempt(f"route of {app.name}", partial(self._route, app, present))
        known = {f"route of {app.name}" for app in astray}
        for name in [n for n in self._troubles if n.startswith("route of ") and n not in known]:
            del self._troubles[name]

    async def _astray(self, apps: Sequence[App], present: Mapping[str, Route]) -> list[App]:
        """Apps whose routes are perhaps not those that are wanted: one look at all, since mostly all are right."""
        live: dict[str, list[InstanceRow]] = {app.id: [] for app in apps}
        for row in await self._instances.all():
            if row.state == "live" and row.app_id in live:
                live[row.app_id].append(row)
        self._released = {app.release_id: r for app in apps if (r := self._released.get(app.release_id or ""))}
        return [app for app in apps if not await self._leads_right(app, live[app.id], present.get(app.name))]

    async def _leads_right(self, app: App, live: Sequence[InstanceRow], present: Route | None) -> bool:
        """Whether it is what `Routing.of` would say; False also where finding that out takes more."""
        if app.release_id is None or app.stopped:
            return present == Route(app.name)
        if any(row.asleep for row in live):
            return False
        if (release := self._released.get(app.release_id)) is None:
            with contextlib.suppress(PaasdError):  # whoever looks closer says what is wrong with it
                whole = await self._releases.get(app, app.release_id)
                release = self._released[app.release_id] = replace(whole, config={})  # no secrets kept for this
        return release is not None and present == self._routing.to(app, release, live)

    async def _route(self, app: App, present: Mapping[str, Route]) -> None:
        """One that is being switched right now is left to its switch, that of an app destroyed meanwhile to nobody."""
        async with self._switches.if_free(app) as free:
            if not free:
                return
            with contextlib.suppress(NotFound):
                wanted = await self._routing.of(await self._apps.refresh(app))
                if present.get(wanted.app) != wanted:
                    await self._edge.set_route(wanted)

    async def _sites(self) -> None:
        for name, reason in (await self._app_sites.sync()).items():
            _log.error("the site of %s is quarantined: %s", name, reason)

    async def _certificates(self) -> None:
        await self._serving.sync()

    async def _look(self) -> None:
        """At what there is. A row is written before its container starts and deleted after it is gone, so rows are read
        before and after: containers with our label that no row wants are leftovers of a killed daemon."""
        self._present, self._strange = None, []
        before = await self._instances.all()
        present = await self._driver.survey()
        wanted = {row.name for row in [*before, *await self._instances.all()]}
        self._present, self._strange = present, [name for name in present if name not in wanted]

    async def _containers(self) -> None:
        await self._deployments.drained()
        await self._instances.retire_abandoned()
        if (actual := self._present) is None:
            return
        apps = {app.id: app for app in await self._apps.all()}
        for row in await self._instances.all():
            if row.state == "retiring":
                self._retirement.begin(row)
            elif row.state == "live" and row.asleep and row.app_id in apps:
                if _runs(actual.get(row.name)):
                    await self._put_back(apps[row.app_id], row)
            elif row.state == "live" and not _serves(actual.get(row.name), row) and row.app_id in apps:
                try:
                    await self._revive(apps[row.app_id], row)
                except PaasdError as error:  # the others must not wait for this one
                    _log.warning("%s cannot be started again: %s", row.name, error.detail)

    async def _revive(self, app: App, row: InstanceRow) -> None:
        """Start a live instance that somebody removed, stopped or cut off behind our back."""
        async with self._switches.if_free(app) as free:
            rows = await self._instances.of(app)
            if not free or row.name not in {r.name for r in rows if r.state == "live"}:
                return
            settings = await self._settings.of(app)
            if settings.strategy is Strategy.RECREATE and any(r.state == "retiring" for r in rows):
                return  # it must not run twice; a later pass starts it
            _log.warning("%s of %s is not running; starting it again", row.name, app.name)
            await self._revival.start(app, row)

    async def _put_back(self, app: App, row: InstanceRow) -> None:
        """Stop an instance of a sleeping app that somebody started, or that a daemon died over."""
        async with self._switches.if_free(app) as free:
            rows = await self._instances.of(app, "live")
            if free and row.name in {r.name for r in rows if r.asleep}:
                _log.warning("%s runs though %s is asleep; stopping it", row.name, app.name)
                await self._sleep.halt(app, [row])

    async def _strangers(self) -> None:
        if self._strange:
            _log.warning("removing containers that nothing wants: %s", ", ".join(self._strange))
            await self._stop(self._strange)

    async def _one_offs(self) -> None:
        """One-off commands that go on though nobody uses them or their app was destroyed."""
        await self._driver.remove_one_offs()
        present = await self._driver.one_offs()
        apps = {app.id for app in await self._apps.all()}
        await self._stop([name for name, app_id in present.items() if app_id not in apps])

    async def _stop(self, names: Sequence[str]) -> None:
        results = await asyncio.gather(
            *(self._driver.stop(name, _STRANGER_TIMEOUT) for name in names), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _networks(self) -> None:
        present = await self._driver.networks()
        wanted = {network_name(self._config.label, project) for project in await self._projects.all()}
        for name in present:
            if name not in wanted:
                with contextlib.suppress(PaasdError):
                    await self._driver.remove_network(name)

    async def _files(self) -> None:
        if steady() >= self._swept + _SWEEP:
            await self._repositories.sweep()
            self._swept = steady()
        present = self._repositories.names()
        for app_id in present - {app.id for app in await self._apps.all()}:
            await self._repositories.remove(app_id)
        await self._builds.remove_stray_logs()


def _runs(instance: Seen | None) -> bool:
    return instance is not None and instance.state in (InstanceState.RUNNING, InstanceState.CRASHING)


def _serves(instance: Seen | None, row: InstanceRow) -> bool:
    """False also for one that was created and never started, or taken off its network. A crashing one is the engine's
    to start again."""
    if instance is None or instance.state in (InstanceState.EXITED, InstanceState.STARTING):
        return False
    return instance.state is InstanceState.CRASHING or instance.address == row.address
