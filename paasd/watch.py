"""Looks after a release for a while once it is live: instances that crash again and again, or an error share far above
that of the release before, bring that one back."""

from __future__ import annotations

import asyncio
import logging

from paasd.apps import Apps
from paasd.changes import Changes
from paasd.clock import steady
from paasd.database import Transaction
from paasd.deployments import Deployment, Deployments, condemn
from paasd.drivers.base import Driver
from paasd.errors import NotFound, PaasdError
from paasd.models import Actor, App
from paasd.progress import Progress
from paasd.release import Releases
from paasd.route.edge import Edge
from paasd.route.traffic import Traffic
from paasd.run.health import crashes
from paasd.run.instances import Instances

_log = logging.getLogger(__name__)

_INTERVAL = 3.0
_CRASHES = 3
_LEAST_REQUESTS, _LEAST_ERRORS = 20, 10
_LEAST_SHARE, _TIMES = 0.05, 3.0
"""An error share counts as far above the old one when it is over both 5 % and three times that."""


def too_many_errors(new: Traffic, old: Traffic) -> str | None:
    """Why the new release must go, in words; None when it may stay."""
    if new.requests < _LEAST_REQUESTS or new.errors < _LEAST_ERRORS:
        return None
    if new.share <= max(_LEAST_SHARE, _TIMES * old.share):
        return None
    before = f"{old.share:.1%} before" if old.requests else "none seen before"
    return f"{new.share:.0%} of {new.requests} requests were answered with 5xx ({before})"


class Watch:
    """What is watched is in the table `deployments`, so that a restart goes on with it."""

    def __init__(
        self,
        apps: Apps,
        releases: Releases,
        deployments: Deployments,
        instances: Instances,
        driver: Driver,
        edge: Edge,
        changes: Changes,
    ) -> None:
        self._apps = apps
        self._releases = releases
        self._deployments = deployments
        self._instances = instances
        self._driver = driver
        self._edge = edge
        self._changes = changes
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.look()
            except PaasdError as error:
                _log.warning("releases cannot be watched right now: %s", error.detail)
            except Exception:
                _log.exception("watching releases failed")

    async def look(self) -> None:
        """Once at everything that is watched."""
        watched = await self._deployments.watched()
        if not watched:
            return
        counters = await self._edge.counters()
        apps = {app.id: app for app in await self._apps.all()}
        for deployment in watched:
            app = apps[deployment.app_id]
            if app.release_id != deployment.release_id or steady() >= (deployment.watch_until or 0):
                await self._deployments.end_watch(deployment)
                continue
            await self._judge(app, deployment, Traffic.of(app.name, counters))

    async def _judge(self, app: App, deployment: Deployment, traffic: Traffic) -> None:
        start = Traffic.at(deployment.baseline)
        if start is None:  # the edge did not tell at the switch
            await self._deployments.set_baseline(deployment, vars(traffic))
            start = traffic
        before = await self._deployments.watched_before(deployment)
        old = start.since(Traffic.at(before.baseline) if before else None)
        reason = await self._crashes(app) or too_many_errors(traffic.since(start), old)
        if reason:
            await self._go_back(app, deployment, reason)

    async def _crashes(self, app: App) -> str | None:
        live = {row.name for row in await self._instances.of(app, "live")}
        for instance in await self._driver.list(app.id):
            if instance.name in live and instance.restarts >= _CRASHES:
                return crashes(instance)
        return None

    async def _go_back(self, app: App, deployment: Deployment, reason: str) -> None:
        assert deployment.release_id is not None
        bad = await self._releases.get(app, deployment.release_id)
        _log.warning("%s %s: %s; going back", app.name, bad.version, reason)

        async def condemned(tx: Transaction) -> None:
            await condemn(tx, app, deployment, f"rolled back: {reason}")

        actor = Actor(app.organization_id, None, "paasd", "owner")
        try:
            await self._changes.rollback(actor, app, None, Progress(), leaving=bad, also=condemned)
        except NotFound as error:
            await self._deployments.end_watch(deployment, f"{reason}; {error.detail}")
        except PaasdError as error:
            _log.warning("%s cannot go back from %s: %s", app.name, bad.version, error.detail)
            await self._deployments.end_watch(deployment, f"{reason}; going back failed: {error.detail}")
