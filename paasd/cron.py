"""Runs commands on a schedule: those of the live release's app.json and those of `cron:add`.

The entry's next time and the row of the run change in one transaction, before the container is started: nothing runs
twice, and what a daemon that died did not start is told of, not made up for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from paasd import events
from paasd.apps import Apps
from paasd.config import Config
from paasd.cron_entries import CRON, Concurrency, CronEntries, Entry, NewEntry, Origin
from paasd.database import Database, Transaction, now
from paasd.errors import Conflict, NotFound, PaasdError
from paasd.events import Subscriber
from paasd.jobs.job import Job
from paasd.jobs.workers import Handler
from paasd.models import Actor, App, Event, Release
from paasd.one_off import Command, OneOffs
from paasd.release import Releases
from paasd.run.runs import Ending, Kind, NewRun, Run, Runs, RunStatus
from paasd.schedules import Schedule

_log = logging.getLogger(__name__)

_GRACE = 60.0
"""Seconds that a run may be late and still be started."""
_EARLY = 0.5
_ACTOR = "paasd"


class Cron:
    def __init__(
        self,
        database: Database,
        config: Config,
        apps: Apps,
        releases: Releases,
        entries: CronEntries,
        runs: Runs,
        one_offs: OneOffs,
    ) -> None:
        self._database = database
        self._config = config
        self._apps = apps
        self._releases = releases
        self._entries = entries
        self._runs = runs
        self._one_offs = one_offs
        self._deciding = asyncio.Lock()
        """So that two runs of an entry do not both find that none is under way."""
        self._syncing = asyncio.Lock()

    def handlers(self) -> Sequence[Handler]:
        return [Handler(CRON, self._due)]

    def subscribers(self) -> Sequence[Subscriber]:
        return [Subscriber("cron", self._deployed, frozenset({"deployment.completed"}))]

    async def resume(self) -> None:
        """At start, and when the system's clock was set: what was deployed while nobody looked, and jobs that are
        missing or wait for what is another time now."""
        concerned = await self._entries.apps_concerned()
        for app in [app for app in await self._apps.all() if app.id in concerned]:
            with contextlib.suppress(PaasdError):
                await self.sync(app)
            for entry in await self._entries.of(app):
                await self._wait(entry)

    async def sync(self, app: App) -> None:
        """Make the entries of app.json those of the live release. One that stays keeps its number and whether it is
        suspended."""
        async with self._syncing:
            release = await self._releases.current(await self._apps.refresh(app))
            wanted = {new.key: new for new in _entries_of(release)}
            present = {e.key: e for e in await self._entries.of(app) if e.origin is Origin.APP_JSON}
            kept = {key for key, new in wanted.items() if key in present and _same(present[key], new)}
            if kept == wanted.keys() == present.keys():
                return
            times = {key: await asyncio.to_thread(new.after, now()) for key, new in wanted.items()}
            async with self._database.transaction() as tx:
                for key in present.keys() - wanted.keys():
                    await self._entries.remove(tx, _ACTOR, app, present[key])
                for key, new in wanted.items():
                    if entry := present.get(key):
                        if key not in kept:
                            await self._entries.revise(tx, entry, new, times[key])
                    elif (next_at := times[key]) is not None:
                        await self._entries.add(tx, _ACTOR, app, new, next_at)

    async def add(self, actor: Actor, app: App, new: NewEntry) -> Entry:
        next_at = await asyncio.to_thread(new.after, now())
        assert next_at is not None, "a checked schedule comes at some time"
        async with self._database.transaction() as tx:
            number = await self._entries.add(tx, actor.name, app, new, next_at)
        return await self._entries.get(app, number)

    async def remove(self, actor: Actor, app: App, number: int) -> None:
        """Raises Conflict for one of app.json."""
        entry = await self._entries.get(app, number)
        if entry.origin is Origin.APP_JSON:
            raise Conflict(
                f"entry {number} is in the app.json of {app.name}",
                hint=f"Take it out there and push, or suspend it: cron:suspend {app.name} {number}",
            )
        async with self._database.transaction() as tx:
            await self._entries.remove(tx, actor.name, app, entry)

    async def suspend(self, actor: Actor, app: App, number: int, suspended: bool) -> Entry:
        entry = await self._entries.get(app, number)
        if entry.suspended != suspended:
            next_at = None if suspended else await asyncio.to_thread(entry.after, now())
            await self._entries.suspend(actor, app, entry, next_at)
        return await self._entries.get(app, number)

    async def run_now(self, actor: Actor, app: App, number: int) -> Run:
        """Beside the schedule. Raises Conflict when the entry forbids two at a time and one is under way."""
        entry = await self._entries.get(app, number)
        release = await self._one_offs.live(app)
        async with self._deciding:
            others = await self._runs.running(app, entry.number)
            if others and entry.concurrency is Concurrency.FORBID:
                raise Conflict(
                    f"run {others[0].number} of entry {number} is under way, and the entry forbids two at a time",
                    hint=f"End it with: run:stop {app.name} {others[0].number}",
                )
            async with self._database.transaction() as tx:
                run = await self._add(tx, app, entry, release, actor.name)
        await self._begin(app, entry, release, run, others)
        return run

    async def _deployed(self, batch: Sequence[Event]) -> None:
        for organization, name in {(event.organization_id, event.app) for event in batch if event.app}:
            with contextlib.suppress(NotFound):
                await self.sync(await self._apps.get(organization, name or ""))

    async def _due(self, job: Job) -> None:
        entry = await self._entries.find(job.payload["entry"])
        if entry is None or entry.suspended or entry.next_at is None:
            return
        if entry.next_at > now() + _EARLY:
            return await self._wait(entry)
        app = next((app for app in await self._apps.all() if app.id == entry.app_id), None)
        if app is None:
            return
        if now() - entry.next_at > _GRACE:
            await self._miss(app, entry)
        else:
            await self._run_due(app, entry)

    async def _wait(self, entry: Entry) -> None:
        """For the entry's next time, or an earlier one: the clock may have been put back by years."""
        if entry.next_at is None:
            return
        nearest = await asyncio.to_thread(entry.after, now())
        async with self._database.transaction() as tx:
            if nearest is not None and nearest < entry.next_at:
                await self._entries.claim(tx, entry, nearest)
            else:
                await self._entries.wait_again(tx, entry)

    async def _miss(self, app: App, entry: Entry) -> None:
        """paasd was not running, or the clock was set. However many runs that were, they are one line of history."""
        due, at = entry.next_at or 0.0, now()
        schedule = Schedule(entry.schedule, entry.timezone)
        count = 1 + await asyncio.to_thread(schedule.count, due, at)
        next_at = await asyncio.to_thread(schedule.after, at)
        ending = Ending(RunStatus.MISSED, reason=f"paasd was not running; {count} missed until now")
        async with self._database.transaction() as tx:
            if await self._entries.claim(tx, entry, next_at):
                await self._add(tx, app, entry, None, _ACTOR, ending)
                await _record(tx, "cron.missed", app, entry, _ACTOR, missed=count)

    async def _run_due(self, app: App, entry: Entry) -> None:
        next_at = await asyncio.to_thread(entry.after, entry.next_at or 0.0)
        release = await self._releases.current(app)
        async with self._deciding:
            others = await self._runs.running(app, entry.number)
            obstacle = _obstacle(app, release, entry, others)
            async with self._database.transaction() as tx:
                if not await self._entries.claim(tx, entry, next_at):
                    return
                if obstacle:
                    await self._add(tx, app, entry, None, _ACTOR, Ending(RunStatus.SKIPPED, reason=obstacle))
                    await _record(tx, "cron.skipped", app, entry, _ACTOR, reason=obstacle)
                    return
                run = await self._add(tx, app, entry, release, _ACTOR)
        assert release is not None
        try:
            await self._begin(app, entry, release, run, others)
        except PaasdError as error:  # it is in the history, and the next one is on its way
            _log.warning("run %s of %s did not start: %s", run.number, app.name, error.detail)

    async def _add(
        self, tx: Transaction, app: App, entry: Entry, release: Release | None, actor: str, ending: Ending | None = None
    ) -> Run:
        number = release.number if release else None
        seconds = self._config.run.one_off_timeout
        new = NewRun(Kind.CRON, "cron", entry.command, actor, seconds, number, entry.number, entry.next_at)
        run = await self._runs.add(tx, app, new, ending)
        if ending is None:
            await _record(tx, "cron.started", app, entry, actor, run=run.number)
        return run

    async def _begin(self, app: App, entry: Entry, release: Release, run: Run, others: Sequence[Run]) -> None:
        if entry.concurrency is Concurrency.REPLACE:
            for other in others:
                with contextlib.suppress(Conflict):  # it has ended meanwhile
                    ending = Ending(RunStatus.STOPPED, reason=f"replaced by run {run.number}")
                    await self._one_offs.stop(app, other.number, ending)
        await self._one_offs.begin(app, release, run, Command(("/bin/sh", "-c", entry.command)))


def _entries_of(release: Release | None) -> list[NewEntry]:
    return [
        NewEntry(
            Origin.APP_JSON,
            entry["schedule"],
            entry["command"],
            entry.get("timezone", "UTC"),
            Concurrency(entry.get("concurrency", Concurrency.ALLOW)),
        )
        for entry in (release.app_json.get("cron", []) if release else [])
    ]


def _same(entry: Entry, new: NewEntry) -> bool:
    return (entry.timezone, entry.concurrency) == (new.timezone, new.concurrency)


def _obstacle(app: App, release: Release | None, entry: Entry, others: Sequence[Run]) -> str:
    """Why a run that is due is not started; empty when it is."""
    if release is None:
        return "the app has not been deployed yet"
    if app.stopped:
        return "the app is stopped"
    if others and entry.concurrency is Concurrency.FORBID:
        return f"run {others[0].number} was still under way"
    return ""


async def _record(tx: Transaction, type: str, app: App, entry: Entry, actor: str, **data: object) -> None:
    await events.record(
        tx, type, organization_id=app.organization_id, actor=actor, app=app.name, entry=entry.number, **data
    )
