"""Restarts live instances that fail their liveness checks: one of a process type at a time, with growing pauses."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from paasd import events, failpoints
from paasd.checks import Check
from paasd.clock import steady
from paasd.database import Database
from paasd.deploy_settings import DeploymentSettings, Strategy
from paasd.drivers.base import Driver
from paasd.errors import PaasdError
from paasd.models import App, InstanceState
from paasd.revival import Revival
from paasd.routing import Routing
from paasd.run.health import Health
from paasd.run.instances import InstanceRow, Instances
from paasd.run.retire import Retirement
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
_RETRY = 2.0
_FORGIVEN = 600.0
"""Seconds without a restart after which the next one comes at once again."""


@dataclass(frozen=True)
class Patient:
    """An instance that shall be restarted, and what must pass before it counts as well again."""

    app: App
    row: InstanceRow
    startup: Sequence[Check]
    host: str
    seen: str
    """Why: what its check saw."""


@dataclass
class _Restarts:
    count: int = 0
    last: float = 0.0
    """On the monotonic clock."""


def pause_before(restart: int) -> float:
    """Seconds between a restart and the one before it; `restart` counts from 1."""
    return 0.0 if restart <= 1 else float(min(_FIRST_PAUSE * 2.0 ** min(restart - 2, 10), _LONGEST_PAUSE))


class Liveness:
    def __init__(
        self,
        database: Database,
        driver: Driver,
        instances: Instances,
        health: Health,
        routing: Routing,
        retirement: Retirement,
        revival: Revival,
        settings: DeploymentSettings,
        switches: SwitchLocks,
    ) -> None:
        self._database = database
        self._driver = driver
        self._instances = instances
        self._health = health
        self._routing = routing
        self._retirement = retirement
        self._revival = revival
        self._settings = settings
        self._switches = switches
        self._under_way: set[tuple[str, str]] = set()
        """Apps, by id, and process types of which an instance is being restarted."""
        self._restarts: dict[str, _Restarts] = {}
        self._asked: dict[str, float] = {}
        """When a restart was last asked for, by instance."""

    def restarts(self, name: str) -> int:
        found = self._restarts.get(name)
        return found.count if found else 0

    def forget_others(self, names: Collection[str]) -> None:
        """Only these instances still exist."""
        self._restarts = {name: found for name, found in self._restarts.items() if name in names}
        self._asked = {name: at for name, at in self._asked.items() if name in names}

    def may_restart(self, row: InstanceRow) -> bool:
        """Not while another one of its kind is being restarted, and not too soon after its own last restart."""
        if (row.app_id, row.process_type) in self._under_way:
            return False
        if time.monotonic() - self._asked.get(row.name, -_RETRY) < _RETRY:
            return False
        found = self._restarts.get(row.name)
        if found is None:
            return True
        since = time.monotonic() - found.last
        if since > _FORGIVEN:
            del self._restarts[row.name]
        return since >= pause_before(found.count + 1)

    async def restart(self, patient: Patient) -> bool:
        """Drain, stop, start, check. True when it is well again; False also when it could not be begun right now."""
        app, row = patient.app, patient.row
        key = app.id, row.process_type
        self._under_way.add(key)
        self._asked[row.name] = time.monotonic()
        try:
            if self._switches.is_held(app) or not await self._is_ours(app, row):
                return False
            return await self._restart(patient)
        except PaasdError as error:
            _log.warning("%s cannot be restarted: %s", row.name, error.detail)
            return False
        finally:
            self._under_way.discard(key)

    async def _restart(self, patient: Patient) -> bool:
        row = patient.row
        restarts = self._restarts.setdefault(row.name, _Restarts())
        restarts.count, restarts.last = restarts.count + 1, time.monotonic()
        _log.warning("restarting %s: %s", row.name, patient.seen)
        await self._record(patient, "instance.restarting", seen=patient.seen, restart=restarts.count)
        started = time.monotonic()
        try:
            if not await self._start_anew(patient):
                return False
        except PaasdError as error:
            await self._record(patient, "instance.restart_failed", reason=error.detail)
            raise
        finally:
            restarts.last = time.monotonic()
        await self._record(patient, "instance.restarted", seconds=round(time.monotonic() - started, 1))
        return True

    async def _start_anew(self, patient: Patient) -> bool:
        """False when it is not ours to restart any more."""
        app, row = patient.app, patient.row
        await self._drain(app, row)
        settings = await self._settings.of(app)
        async with self._switches.of(app):
            if not await self._is_ours(app, row):
                return False
            await self._driver.stop(row.name, settings.stop_timeout)
            await failpoints.hit("unhealthy-stopped")
            await self._revival.start(app, row)
        deadline = time.monotonic() + settings.start_timeout
        await self._health.wait(app, row, patient.startup, patient.host, deadline, _log.info)
        return True

    async def _is_ours(self, app: App, row: InstanceRow) -> bool:
        """Whether it is still live and running: one that crashes is the engine's to start again, one that somebody
        removed the reconciler's."""
        rows = await self._instances.of(app)
        if row.name not in {other.name for other in rows if other.state == "live"}:
            return False
        recreated = (await self._settings.of(app)).strategy is Strategy.RECREATE
        if recreated and any(other.state == "retiring" for other in rows):
            return False  # it must not run twice
        instance = await self._driver.inspect(row.name)
        return instance is not None and instance.state is InstanceState.RUNNING

    async def _drain(self, app: App, row: InstanceRow) -> None:
        """Only when requests go elsewhere: to the last one they come all the time."""
        route = await self._routing.of(app)
        if row.process_type != "web" or row.address in {endpoint.address for endpoint in route.endpoints}:
            return
        until = steady() + (await self._settings.of(app)).drain
        await self._retirement.quiet([row.address], until, until)

    async def _record(self, patient: Patient, kind: str, **data: object) -> None:
        app, row = patient.app, patient.row
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                kind,
                organization_id=app.organization_id,
                actor="paasd",
                app=app.name,
                instance=f"{row.process_type}.{row.number}",
                **data,
            )
