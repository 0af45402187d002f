"""Keeps the number of instances fit for their load, as its rules say. Owns what was seen, in memory: after a start of
the daemon instances go only after a whole cool-down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from paasd import events
from paasd.apps import Apps
from paasd.autoscale_rules import AutoscaleRules, Load, Recommendation, Rule, decide, recommend
from paasd.canary import Answers, between
from paasd.changes import Changes
from paasd.database import Database
from paasd.drivers.base import Driver, Usage
from paasd.errors import NotFound, PaasdError, QuotaExceeded
from paasd.models import Actor, App
from paasd.progress import Progress
from paasd.route.control import AppCounters
from paasd.route.edge import Edge
from paasd.run.instances import Instances
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_AFTER_FAILURE = 120.0
_FEWEST_TIMED = 5
"""Requests below which their times say nothing."""


@dataclass(frozen=True)
class Reading:
    """The counters of one process type at one moment."""

    at: float
    """On the monotonic clock."""
    usage: Mapping[str, Usage]
    counters: AppCounters | None


@dataclass
class Observed:
    """What was seen of one process type of one app."""

    last: Reading | None = None
    load: Load = field(default_factory=Load)
    recommendations: deque[tuple[float, Recommendation]] = field(default_factory=deque)
    not_before: float = 0.0

    @property
    def recommendation(self) -> Recommendation | None:
        return self.recommendations[-1][1] if self.recommendations else None


def load_between(before: Reading, after: Reading) -> Load:
    """What happened between two readings; of instances that ran at both."""
    seconds = after.at - before.at
    cpu = []
    for name, usage in after.usage.items():
        old = before.usage.get(name)
        if old is not None and usage.cpu_seconds >= old.cpu_seconds and seconds > 0:
            cpu.append(100 * (usage.cpu_seconds - old.cpu_seconds) / seconds / (usage.cpus or 1.0))
    memory = [100 * usage.memory / usage.memory_limit for usage in after.usage.values() if usage.memory_limit]
    answers = between(before.counters, after.counters) if after.counters else Answers()
    rps = answers.requests / seconds if seconds > 0 else None
    return Load(_mean(cpu), _mean(memory), rps, _p95(answers))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _p95(answers: Answers) -> float | None:
    """Inside its bucket as if the requests were spread evenly there."""
    counts = sorted((answers.latency or {}).items())
    total = sum(count for _, count in counts)
    if total < _FEWEST_TIMED:
        return None if total else 0.0
    wanted, lower = 0.95 * total, 0.0
    for bound, count in counts:
        if count and wanted <= count:
            return lower if bound == float("inf") else lower + (bound - lower) * wanted / count
        wanted, lower = wanted - count, bound
    return lower


class Autoscaler:
    def __init__(
        self,
        database: Database,
        rules: AutoscaleRules,
        apps: Apps,
        instances: Instances,
        driver: Driver,
        edge: Edge,
        changes: Changes,
        switches: SwitchLocks,
        interval: float,
    ) -> None:
        self._database = database
        self._rules = rules
        self._apps = apps
        self._instances = instances
        self._driver = driver
        self._edge = edge
        self._changes = changes
        self._switches = switches
        self._interval = interval
        self._observed: dict[tuple[str, str], Observed] = {}
        """By app id and process type."""
        self._scaling: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        tasks = [*self._scaling.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def observed(self, app: App, process_type: str) -> Observed:
        return self._observed.get((app.id, process_type), Observed())

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except PaasdError as error:
                _log.warning("apps cannot be scaled right now: %s", error.detail)
            except Exception:
                _log.exception("scaling apps failed")

    async def look(self) -> None:
        """Once at everything that has a rule."""
        rules = await self._rules.all()
        keys = {(app_id, process_type) for app_id, types in rules.items() for process_type in types}
        self._observed = {key: observed for key, observed in self._observed.items() if key in keys}
        if not rules:
            return
        apps = {app.id: app for app in await self._apps.all()}
        live = await self._live()
        flat = [rule for types in rules.values() for rule in types.values()]
        counters = await self._edge.counters() if any(rule.asks_edge for rule in flat) else {}
        measured = [name for key in keys for name in live.get(key, ()) if rules[key[0]][key[1]].asks_driver]
        usage = await self._driver.usage(measured) if measured else {}
        for app_id, process_type in sorted(keys):
            if (app := apps.get(app_id)) is not None:
                names = live.get((app_id, process_type), [])
                used = {name: usage[name] for name in names if name in usage}
                reading = Reading(time.monotonic(), used, counters.get(app.name))
                self._consider(app, process_type, rules[app_id][process_type], len(names), reading)

    async def _live(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for row in await self._instances.all():
            if row.state == "live" and not row.asleep:
                found.setdefault((row.app_id, row.process_type), []).append(row.name)
        return found

    def _consider(self, app: App, process_type: str, rule: Rule, current: int, reading: Reading) -> None:
        """An app that is stopped, asleep, scaled to none or being deployed is left alone."""
        observed = self._observed.setdefault((app.id, process_type), Observed())
        before, observed.last = observed.last, reading
        if app.stopped or not current or app.id in self._scaling or self._switches.is_held(app):
            observed.last = None
            observed.recommendations.clear()
            return
        now = reading.at
        if before is None:
            observed.recommendations.append((now, Recommendation(current, "just begun to look")))
            return
        observed.load = load_between(before, reading)
        observed.recommendations.append((now, recommend(rule, current, observed.load)))
        while len(observed.recommendations) > 1 and observed.recommendations[1][0] <= now - rule.cooldown:
            observed.recommendations.popleft()
        if now >= observed.not_before and (wanted := decide(rule, current, list(observed.recommendations), now)):
            task = asyncio.create_task(self._scale(app, process_type, current, wanted))
            self._scaling[app.id] = task
            task.add_done_callback(lambda _: self._scaling.pop(app.id, None))

    async def _scale(self, app: App, process_type: str, current: int, wanted: Recommendation) -> None:
        _log.info("scaling %s %s from %s to %s: %s", app.name, process_type, current, wanted.count, wanted.reason)
        actor = Actor(app.organization_id, None, "paasd", "owner")
        try:
            wanted = await self._within_quota(actor, app, process_type, current, wanted)
            await self._record(app, "app.autoscaled", process_type, current, wanted)
            await self._changes.scale(actor, app, Progress())
        except PaasdError as error:
            _log.warning("%s cannot be scaled: %s", app.name, error.detail)
            failed = Recommendation(wanted.count, error.detail)
            self.observed(app, process_type).not_before = time.monotonic() + _AFTER_FAILURE
            with suppress(NotFound):  # it may have been destroyed
                await self._set(actor, app, process_type, current)
                await self._record(app, "app.autoscale_failed", process_type, current, failed)
        except Exception:
            _log.exception("scaling %s failed", app.name)

    async def _within_quota(
        self, actor: Actor, app: App, process_type: str, current: int, wanted: Recommendation
    ) -> Recommendation:
        """Set what is wanted, or as much of it as quotas leave. Raises QuotaExceeded when they leave nothing."""
        reason = wanted.reason
        for count in range(wanted.count, min(current, wanted.count - 1), -1):
            try:
                await self._set(actor, app, process_type, count)
            except QuotaExceeded as error:
                reason = f"{wanted.reason}; {wanted.count} are too many: {error.detail}"
                refused = error
            else:
                return Recommendation(count, reason)
        raise refused

    async def _set(self, actor: Actor, app: App, process_type: str, count: int) -> None:
        await self._apps.set_scale(actor, await self._apps.refresh(app), {process_type: count})

    async def _record(self, app: App, kind: str, process_type: str, current: int, wanted: Recommendation) -> None:
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                kind,
                organization_id=app.organization_id,
                actor="paasd",
                app=app.name,
                process_type=process_type,
                before=current,
                after=wanted.count,
                reason=wanted.reason,
            )
