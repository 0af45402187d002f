"""Goes on checking live instances: those that fail a readiness check get no requests, those that fail a liveness check
are restarted. Owns what was seen of them, in memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from paasd import events
from paasd.apps import Apps
from paasd.check_grammar import CheckType
from paasd.checks import Check
from paasd.database import Database
from paasd.errors import PaasdError
from paasd.health_subjects import LASTING, LEAST_WAIT, Subject, Subjects, Watched, facts, new, order, seen, shape
from paasd.liveness import Liveness, Patient
from paasd.models import App
from paasd.route.edge import Edge
from paasd.routing import Routing
from paasd.run.failure_hooks import FailureHooks
from paasd.run.instances import Instances
from paasd.run.probe import Probe
from paasd.run.readiness import Readiness
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_TICK = 0.25
_REFRESH, _LEAST_REFRESH = 30.0, 1.0
"""Seconds between two looks at what there is to check: at most, and at least when events come."""
_AT_ONCE = 32


class HealthWatch:
    def __init__(
        self,
        database: Database,
        subjects: Subjects,
        apps: Apps,
        instances: Instances,
        edge: Edge,
        routing: Routing,
        switches: SwitchLocks,
        probe: Probe,
        readiness: Readiness,
        liveness: Liveness,
        hooks: FailureHooks,
    ) -> None:
        self._database = database
        self._subjects = subjects
        self._apps = apps
        self._instances = instances
        self._edge = edge
        self._routing = routing
        self._switches = switches
        self._probe = probe
        self._readiness = readiness
        self._liveness = liveness
        self._hooks = hooks
        self._known: Sequence[Subject] = ()
        """What the last look found, and was acted upon."""
        self._watched: dict[tuple[str, Check], Watched] = {}
        self._of_instance: dict[str, list[Watched]] = {}
        """The same by instance."""
        self._unrouted: dict[str, App] = {}
        """Apps whose route is not yet what their instances are ready for."""
        self._asking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop_task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        tasks = [*self._tasks, *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._probe.close()

    async def _loop(self) -> None:
        refreshed: float | None = None
        with self._database.watch(events.TOPIC) as told:
            while True:
                try:
                    since = time.monotonic() - refreshed if refreshed is not None else _REFRESH
                    if since >= _REFRESH or (told.is_set() and since > _LEAST_REFRESH):
                        told.clear()
                        await self._refresh(first=refreshed is None)
                        refreshed = time.monotonic()
                    self._begin_due()
                    for app in list(self._unrouted.values()):
                        await self._route(app)
                except PaasdError as error:
                    _log.warning("instances cannot be checked right now: %s", error.detail)
                    await asyncio.sleep(_LEAST_REFRESH)
                except Exception:
                    _log.exception("checking instances failed")
                    await asyncio.sleep(_LEAST_REFRESH)
                await asyncio.sleep(_TICK)

    # what there is to check

    async def _refresh(self, *, first: bool) -> None:
        subjects = await self._subjects.all()
        if subjects is self._known:
            return
        wanted = {(s.row.name, check): s for s in subjects for check in s.of(*LASTING)}
        for key in self._watched.keys() - wanted.keys():
            del self._watched[key]
        for key, subject in wanted.items():
            if known := self._watched.get(key):
                known.subject = subject
            else:
                self._watched[key] = new(subject, key[1], first)
        self._of_instance = {}
        for (name, _), watched in self._watched.items():
            self._of_instance.setdefault(name, []).append(watched)
        names = {subject.row.name for subject in subjects}
        self._readiness.forget_others(names)
        self._liveness.forget_others(names)
        for subject in subjects:  # a check that is not asked any more keeps nobody out
            await self._judge(subject, None)
        self._known = subjects

    # asking

    def _begin_due(self) -> None:
        """A look at each every quarter of a second costs less than keeping them in order."""
        now = time.monotonic()
        for watched in self._watched.values():
            if watched.asking or watched.following:
                continue
            if watched.failing and watched.check.type is CheckType.LIVENESS and not watched.check.warn:
                if self._liveness.may_restart(watched.subject.row):
                    self._begin(self._restart(watched))
                    return
            if watched.due <= now and self._asking < _AT_ONCE:
                self._begin(self._ask(self._together(watched, now)))

    def _together(self, first: Watched, now: float) -> list[Watched]:
        """It and whatever else asks the same of its instance now; one answer does for all."""
        soon, question = now + _TICK, first.check.question
        together = [
            watched
            for watched in self._of_instance[first.subject.row.name]
            if watched.due <= soon and watched.check.question == question and not (watched.asking or watched.following)
        ]
        for watched in together:
            watched.asking = True
        self._asking += 1
        return together

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("checking an instance failed", exc_info=error)

    async def _ask(self, together: Sequence[Watched]) -> None:
        first = together[0]
        try:
            answer = await self._probe(first.subject.row, first.check, first.subject.host)
            # Whoever holds the lock may have stopped the instance, as the strategy recreate does.
            counts = not self._switches.is_held(first.subject.app)
            for watched in [watched for watched in together if watched.note(answer, counts=counts)]:
                await self._judge(watched.subject, watched)
        finally:
            ended = time.monotonic()
            for watched in together:
                watched.due = ended + max(LEAST_WAIT, watched.check.wait)
                watched.asking = False
            self._asking -= 1

    async def _restart(self, watched: Watched) -> None:
        subject = watched.subject
        why = watched.samples[-1].answer.seen
        patient = Patient(subject.app, subject.row, subject.of(CheckType.STARTUP), subject.host, why)
        if await self._liveness.restart(patient):
            for other in self._of_instance.get(subject.row.name, ()):
                other.begin_anew()
            await self._judge(subject, None)

    # what follows

    async def _judge(self, subject: Subject, changed: Watched | None) -> None:
        """Tell what changed, and bring the route in line. A failed liveness check keeps requests away too, until the
        restart has helped."""
        name = subject.row.name
        ready = not any(watched.failing and not watched.check.warn for watched in self._of_instance.get(name, ()))
        news = self._readiness.mark(name, ready)
        if changed is not None:
            await self._tell(changed, ready)
        if news and subject.row.process_type == "web":
            self._unrouted[subject.app.id] = subject.app
            await self._route(subject.app)
        if changed is not None and changed.failing:
            changed.following = True
            self._begin(self._follow_up(changed))

    async def _follow_up(self, watched: Watched) -> None:
        """What the failure sets off, beside everything else. A restart comes afterwards."""
        try:
            await self._run_hooks(watched)
        finally:
            watched.following = False

    async def _run_hooks(self, watched: Watched) -> None:
        app, row = watched.subject.app, watched.subject.row
        for text in await self._hooks(app, row, watched.check, watched.samples[-1].answer.seen):
            async with self._database.transaction() as tx:
                await events.record(
                    tx,
                    "instance.failure_hook",
                    organization_id=app.organization_id,
                    actor="paasd",
                    app=app.name,
                    instance=f"{row.process_type}.{row.number}",
                    check=watched.check.name or watched.check.what,
                    told=text,
                )

    async def _tell(self, watched: Watched, ready: bool) -> None:
        subject, check = watched.subject, watched.check
        row = subject.row
        data: dict[str, Any] = {
            "instance": f"{row.process_type}.{row.number}",
            "check": check.name or check.what,
            "seen": watched.samples[-1].answer.seen,
        }
        if check.warn:
            kind = "instance.warning" if watched.failing else "instance.warning_over"
        elif check.type is CheckType.LIVENESS:
            kind = "instance.unhealthy" if watched.failing else "instance.healthy"
        else:
            kind = "instance.unready" if not ready else "instance.ready"
        if watched.failing and not check.warn and row.process_type == "web" and await self._none_is_ready(subject):
            data["note"] = "no other instance is ready, so all go on getting requests"
        app = subject.app
        async with self._database.transaction() as tx:
            await events.record(tx, kind, organization_id=app.organization_id, actor="paasd", app=app.name, **data)

    async def _none_is_ready(self, subject: Subject) -> bool:
        rows = await self._instances.of(subject.app, "live")
        web = [row for row in rows if row.process_type == subject.row.process_type]
        return not any(self._readiness.is_ready(row.name) for row in web)

    async def _route(self, app: App) -> None:
        """What goes live right now has a route of its own; it is looked at again afterwards."""
        async with self._switches.if_free(app) as free:
            if not free:
                return
            try:
                route = await self._routing.of(await self._apps.refresh(app))
                await self._edge.set_route(route)
            except PaasdError as error:
                _log.warning("the route of %s is left to the reconciler: %s", app.name, error.detail)
            self._unrouted.pop(app.id, None)

    # for people

    async def report(self, app: App) -> list[dict[str, Any]]:
        """Each live instance, and what was seen of its liveness and readiness checks."""
        subjects = await self._subjects.of(app)
        return [self._shape(subject) for subject in sorted(subjects, key=lambda s: (s.row.process_type, s.row.number))]

    def _shape(self, subject: Subject) -> dict[str, Any]:
        name = subject.row.name
        return {
            "instance": f"{subject.row.process_type}.{subject.row.number}",
            "name": name,
            "ready": self._readiness.is_ready(name),
            "restarts": self._liveness.restarts(name),
            "checks": [shape(check, self._watched.get((name, check))) for check in sorted(subject.checks, key=order)],
        }

    async def run(self, app: App) -> list[dict[str, Any]]:
        """Ask all checks of all live instances once, now, startup checks too."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(subject: Subject, check: Check) -> dict[str, Any]:
            async with gate:
                answer = await self._probe(subject.row, check, subject.host)
            title = f"{subject.row.process_type}.{subject.row.number}"
            return {"instance": title, **facts(check), "ok": answer.ok, **seen(answer)}

        subjects = await self._subjects.of(app)
        asked = (ask(subject, check) for subject in subjects for check in sorted(subject.checks, key=order))
        found = await asyncio.gather(*asked)
        return sorted(found, key=lambda result: str(result["instance"]))
