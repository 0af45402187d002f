"""Looks after a release for a while once it is live: instances that crash again and again, or an error share far above
that of the release before, bring that one back."""

from __future__ import annotations

import asyncio
import logging
import time

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
_WHOLE_INTERVAL = 60.0
"""Seconds between two looks at all instances that are watched. The engine tells of those that end, but a moment may
pass before it is listened to."""
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
        self._tasks: list[asyncio.Task[None]] = []
        self._stirred: set[str] = set()
        """Ids of apps whose instances ended or started since the last look."""
        self._looked_at: frozenset[str] = frozenset()
        """Ids of the deployments whose instances that look was at."""
        self._whole_at = 0.0
        """When all are looked at again, on the monotonic clock."""

    def start(self) -> None:
        self._tasks = [asyncio.create_task(work()) for work in (self._loop, self._listen)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async for event in self._driver.events():
                    if event.action in ("die", "start"):  # an end is counted when the engine starts it again
                        self._stirred.add(event.app_id)
            except PaasdError:
                pass  # the reconciler says so
            except Exception:
                _log.exception("listening to the engine failed")
            self._looked_at = frozenset()
            await asyncio.sleep(1)

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.look()
                continue
            except PaasdError as error:
                _log.warning("releases cannot be watched right now: %s", error.detail)
            except Exception:
                _log.exception("watching releases failed")
            self._looked_at = frozenset()

    async def look(self) -> None:
        """Once at everything that is watched."""
        watched = await self._deployments.watched()
        stirred, self._stirred = self._stirred, set()
        if not watched:
            return
        known = self._known()
        counters = await self._edge.counters()
        apps = {app.id: app for app in await self._apps.all()}
        for deployment in watched:
            app = apps.get(deployment.app_id)
            if app is None:  # destroyed a moment ago
                continue
            if app.release_id != deployment.release_id or steady() >= (deployment.watch_until or 0):
                await self._deployments.end_watch(deployment)
                continue
            reason = None
            if app.id in stirred or deployment.id not in known:
                reason = await self._crashes(app)
            reason = reason or await self._errors(deployment, Traffic.of(app.name, counters))
            if reason:
                await self._go_back(app, deployment, reason)
        self._looked_at = frozenset(deployment.id for deployment in watched)

    def _known(self) -> frozenset[str]:
        """Deployments whose instances were looked at, so that the engine has to tell before they are again."""
        if time.monotonic() >= self._whole_at:
            self._whole_at = time.monotonic() + _WHOLE_INTERVAL
            return frozenset()
        return self._looked_at

    async def _errors(self, deployment: Deployment, traffic: Traffic) -> str | None:
        start = Traffic.at(deployment.baseline)
        if start is None:  # the edge did not tell at the switch
            await self._deployments.set_baseline(deployment, vars(traffic))
            start = traffic
        new = traffic.since(start)
        if too_many_errors(new, Traffic()) is None:
            return None  # few enough, whatever was before
        before = await self._deployments.watched_before(deployment)
        return too_many_errors(new, start.since(Traffic.at(before.baseline) if before else None))

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
