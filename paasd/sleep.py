"""Puts an app to sleep and wakes it: its containers are kept, stopped, and started again as they are.

The edge is told first in both directions. On the way to sleep nobody is sent to an instance that is about to stop; on
the way back the instances answer before anybody is sent to them. Where edge and database differ, because a daemon died
between both, the app is awake."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from paasd import events, failpoints
from paasd.apps import Apps
from paasd.check_grammar import CheckType
from paasd.checks import checks_of, merged
from paasd.config import RunConfig
from paasd.database import Database, now
from paasd.deploy_settings import DeploymentSettings
from paasd.drivers.base import Driver
from paasd.errors import EngineError, EngineUnavailable, PaasdError
from paasd.models import App, Release
from paasd.release import Releases
from paasd.revival import Revival
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.routing import Routing
from paasd.run.health import Health
from paasd.run.instances import InstanceRow, Instances, mark_asleep
from paasd.sleep_rules import SleepRules
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_LOOKS, _SETTLE = 2, 0.3
"""Workers of a reloaded Nginx go on with the old table for about 0.1 s."""


class Sleep:
    """Holds the app's switch lock meanwhile, so that nothing is deployed to what starts or stops."""

    def __init__(
        self,
        config: RunConfig,
        database: Database,
        apps: Apps,
        releases: Releases,
        instances: Instances,
        driver: Driver,
        health: Health,
        routing: Routing,
        edge: Edge,
        domains: Domains,
        settings: DeploymentSettings,
        rules: SleepRules,
        revival: Revival,
        switches: SwitchLocks,
    ) -> None:
        self._config = config
        self._database = database
        self._apps = apps
        self._releases = releases
        self._instances = instances
        self._driver = driver
        self._health = health
        self._routing = routing
        self._edge = edge
        self._domains = domains
        self._settings = settings
        self._rules = rules
        self._revival = revival
        self._switches = switches

    async def fall_asleep(self, app: App, why: str, requests: int, wanted: asyncio.Event) -> bool:
        """False when it is not to be: somebody asks for it after all (`wanted` is set, or it was asked more often than
        `requests`), or changes it."""
        async with self._switches.if_free(app) as free:
            app = await self._apps.refresh(app)
            release, rows = await self._releases.current(app), await self._awake(app)
            if not free or release is None or not any(row.process_type == "web" for row in rows):
                return False
            try:
                await self._edge.set_route(await self._routing.asleep(app, release))
                await failpoints.hit("sleep-routed")
                quiet = await self._is_quiet(app, rows, requests, wanted)
                if quiet:
                    await self._write_down(app, rows, now(), "app.slept", reason=why)
                else:
                    await self._edge.set_route(await self._routing.of(app))
            except BaseException:
                await asyncio.shield(self._correct_route(app))
                raise
            if quiet:
                await failpoints.hit("sleep-written")
                await self.halt(app, rows)
            return quiet

    async def wake(self, app: App, why: str) -> float | None:
        """Seconds until requests were sent to it; None when it did not sleep. On failure it sleeps on."""
        started = time.monotonic()
        async with self._switches.of(app):
            app = await self._apps.refresh(app)
            release, live = await self._releases.current(app), await self._instances.of(app, "live")
            rows = [row for row in live if row.asleep]
            if release is None or not rows:
                return None
            try:
                await self._bring_up(app, release, rows)
                await failpoints.hit("wake-started")
                awake = [replace(row, asleep_since=None) for row in live]
                await self._edge.set_route(self._routing.to(app, release, awake))
                await failpoints.hit("wake-routed")
                seconds = time.monotonic() - started
                await self._write_down(app, rows, None, "app.woke", reason=why, seconds=round(seconds, 3))
            except BaseException as error:
                await asyncio.shield(self._correct_route(app))
                # A daemon that stops, or has no engine, leaves what may have started to the reconciler.
                if isinstance(error, Exception) and not isinstance(error, EngineUnavailable):
                    await self.halt(app, rows)
                raise
            return seconds

    async def recover(self) -> None:
        """Once at start: what a killed daemon had woken, but not written down, is in use by now and stays awake."""
        asleep = [app for app in await self._apps.all() if app.asleep]
        routes = await self._edge.routes() if asleep else {}
        for app in asleep:
            if app.name in routes and routes[app.name].endpoints:
                rows = [row for row in await self._instances.of(app, "live") if row.asleep]
                await self._write_down(app, rows, None, "app.woke", reason="paasd stopped while it was being woken")

    async def halt(self, app: App, rows: Sequence[InstanceRow]) -> None:
        """Stop instances that sleep. What cannot be done now the reconciler does."""
        timeout = (await self._settings.of(app)).stop_timeout
        for result in await asyncio.gather(
            *(self._driver.halt(row.name, timeout) for row in rows), return_exceptions=True
        ):
            if isinstance(result, PaasdError):
                _log.warning("%s is asleep, but runs on for now: %s", app.name, result.detail)
            elif isinstance(result, BaseException):
                raise result

    async def _awake(self, app: App) -> list[InstanceRow]:
        """The live instances that its rule puts to sleep."""
        rule = await self._rules.of(app)
        rows = (row for row in await self._instances.of(app, "live") if not row.asleep)
        return [row for row in rows if row.process_type == "web" or (rule is not None and rule.workers)]

    async def _is_quiet(self, app: App, rows: Sequence[InstanceRow], requests: int, wanted: asyncio.Event) -> bool:
        """Whether the last request was the last one, now that none is sent to the instances any more."""
        addresses = {row.address for row in rows}
        for _ in range(_LOOKS):
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE):
                    await wanted.wait()
            under_way = await self._edge.in_flight()
            if wanted.is_set() or any(name.rpartition(":")[0] in addresses for name in under_way):
                return False
        counters = (await self._edge.counters()).get(app.name)
        return (counters.requests if counters else 0) == requests and not wanted.is_set()

    async def _bring_up(self, app: App, release: Release, rows: Sequence[InstanceRow]) -> None:
        """All at the same time. Those of web must pass their startup checks, the others are only started, as after a
        restart of the engine."""
        settings, said = await self._settings.of(app), await self._apps.checks(app)
        listed = merged(release.checks, said).get("web", [])
        checks = checks_of(listed, CheckType.STARTUP, "web", release.port or self._config.port)
        host = await self._domains.main(app)
        deadline = time.monotonic() + settings.start_timeout

        async def bring_up(row: InstanceRow) -> None:
            if not await self._resumes(row):
                _log.warning("%s was not kept; it is made anew", row.name)
                await self._driver.stop(row.name, 1)
                await self._revival.start(app, row)
            if row.process_type == "web":
                await self._health.wait(app, row, checks, host, deadline, _log.info)

        try:
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(bring_up(row))
        except* PaasdError as errors:
            raise next(error for error in errors.exceptions if isinstance(error, PaasdError)) from None

    async def _resumes(self, row: InstanceRow) -> bool:
        """False also when the engine will not: one that died while it started a container never starts that again."""
        try:
            return await self._driver.resume(row.name)
        except EngineUnavailable:
            raise
        except EngineError as error:
            _log.warning("%s cannot be woken: %s", row.name, error.detail)
            return False

    async def _write_down(
        self, app: App, rows: Sequence[InstanceRow], since: float | None, kind: str, **data: object
    ) -> None:
        async with self._database.transaction() as tx:
            for row in rows:
                await mark_asleep(tx, row.name, since)
            await events.record(
                tx, kind, organization_id=app.organization_id, actor="paasd", app=app.name, instances=len(rows), **data
            )

    async def _correct_route(self, app: App) -> None:
        """An edge that cannot be told now is told by the reconciler; why it failed must not be hidden by it."""
        try:
            await self._edge.set_route(await self._routing.of(app))
        except Exception as error:
            _log.warning("%s: the edge does not take the old route back yet: %s", app.name, error)
