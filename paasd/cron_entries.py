"""Table `cron_entries`: what an app runs when. Each entry that is not suspended has a job that waits for its time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from paasd import events
from paasd.app_settings import put
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import NotFound
from paasd.jobs.job import JobType, Queue
from paasd.jobs.table import Jobs
from paasd.models import Actor, App
from paasd.schedules import Schedule

CRON = JobType("cron.run", Queue.CRON, timeout=180, max_attempts=1000)
"""Never given up: the next run hangs on it."""
_FAMILY, _NUMBERED = "cron", "numbered"
"""Where the highest number is kept."""


class Origin(StrEnum):
    APP_JSON = "app.json"
    COMMAND = "cron:add"


class Concurrency(StrEnum):
    """What happens when a run is due while another one of the entry is under way."""

    ALLOW = "allow"
    FORBID = "forbid"
    REPLACE = "replace"


@dataclass(frozen=True)
class NewEntry:
    """Checked by the caller."""

    origin: Origin
    schedule: str
    command: str
    """Shell text."""
    timezone: str = "UTC"
    concurrency: Concurrency = Concurrency.ALLOW

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same from release to release."""
        return self.schedule, self.command

    def after(self, at: float) -> float | None:
        """When it is due next. Call it in a thread."""
        return Schedule(self.schedule, self.timezone).after(at)


@dataclass(frozen=True)
class Entry(NewEntry):
    """`number` is its name; never given twice in an app."""

    id: str = ""
    organization_id: str = ""
    app_id: str = ""
    number: int = 0
    suspended: bool = False
    next_at: float | None = None
    created_by: str = ""
    created_at: float = 0.0


class CronEntries:
    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs

    async def of(self, app: App) -> list[Entry]:
        rows = await self._database.fetch(
            "SELECT * FROM cron_entries WHERE organization_id = ? AND app_id = ? ORDER BY number",
            app.organization_id,
            app.id,
        )
        return [_entry(row) for row in rows]

    async def apps_concerned(self) -> set[str]:
        """Ids of the apps that have entries, or a live release that brings some."""
        rows = await self._database.fetch(
            "SELECT app_id FROM cron_entries UNION SELECT apps.id FROM apps JOIN releases ON releases.id ="
            " apps.release_id WHERE json_array_length(releases.app_json, '$.cron') > 0"
        )
        return {row["app_id"] for row in rows}

    async def get(self, app: App, number: int) -> Entry:
        found = next((entry for entry in await self.of(app) if entry.number == number), None)
        if found is None:
            raise NotFound(f"{app.name} has no cron entry {number}", hint=f"List them with: cron:list {app.name}")
        return found

    async def find(self, id: str) -> Entry | None:
        row = await self._database.fetch_one("SELECT * FROM cron_entries WHERE id = ?", id)
        return _entry(row) if row else None

    async def copy(self, actor: Actor, app: App, other: App) -> None:
        """Give `other`, which has none yet, the entries of `cron:add`: those of app.json come with a release. Who is
        suspended stays so."""
        found = [entry for entry in await self.of(app) if entry.origin is Origin.COMMAND]
        times = [None if entry.suspended else await asyncio.to_thread(entry.after, now()) for entry in found]
        async with self._database.transaction() as tx:
            for entry, next_at in zip(found, times, strict=True):
                await self.add(tx, actor.name, other, entry, next_at)

    async def add(self, tx: Transaction, actor: str, app: App, new: NewEntry, next_at: float | None) -> int:
        """Returns its number. Without a time it is suspended."""
        id, number = new_id(), await self._next_number(tx, app)
        row = await tx.fetch_one(
            "INSERT INTO cron_entries (id, organization_id, app_id, number, origin, schedule, command, timezone,"
            " concurrency, suspended, created_by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
            *(id, app.organization_id, app.id, number, new.origin, new.schedule, new.command, new.timezone),
            *(new.concurrency, int(next_at is None), actor, now()),
        )
        assert row is not None
        entry = _entry(row)
        await self.plan(tx, entry, next_at)
        await _record(tx, "cron.added", actor, app, entry)
        return number

    async def _next_number(self, tx: Transaction, app: App) -> int:
        """Kept apart, so that a number that somebody remembers never means another entry."""
        row = await tx.fetch_one(
            "SELECT value FROM app_settings WHERE app_id = ? AND family = ? AND key = ?", app.id, _FAMILY, _NUMBERED
        )
        number = 1 + int(row["value"] if row else 0)
        await put(tx, app, _FAMILY, _NUMBERED, str(number))
        return number

    async def remove(self, tx: Transaction, actor: str, app: App, entry: Entry) -> None:
        await self._jobs.cancel(tx, CRON, entry.id, organization_id=entry.organization_id)
        await tx.execute("DELETE FROM cron_entries WHERE id = ?", entry.id)
        await _record(tx, "cron.removed", actor, app, entry)

    async def revise(self, tx: Transaction, entry: Entry, new: NewEntry, next_at: float | None) -> None:
        """What may change without it being another entry."""
        await tx.execute(
            "UPDATE cron_entries SET timezone = ?, concurrency = ? WHERE id = ?",
            new.timezone,
            new.concurrency,
            entry.id,
        )
        if not entry.suspended:
            await self.plan(tx, entry, next_at)

    async def suspend(self, actor: Actor, app: App, entry: Entry, next_at: float | None) -> None:
        """`next_at` when it goes on, None when it is suspended."""
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE cron_entries SET suspended = ? WHERE id = ?", int(next_at is None), entry.id)
            await self.plan(tx, entry, next_at)
            await _record(tx, "cron.suspended" if next_at is None else "cron.resumed", actor.name, app, entry)

    async def plan(self, tx: Transaction, entry: Entry, next_at: float | None) -> None:
        """Have it run then, and not at any other time."""
        await tx.execute("UPDATE cron_entries SET next_at = ? WHERE id = ?", next_at, entry.id)
        await self._jobs.cancel(tx, CRON, entry.id, organization_id=entry.organization_id)
        if next_at is not None:
            await self._add_job(tx, entry, next_at)

    async def claim(self, tx: Transaction, entry: Entry, next_at: float | None) -> bool:
        """Take the run that is due, once: False when somebody else did, or the entry was changed."""
        claimed = await tx.execute(
            "UPDATE cron_entries SET next_at = ? WHERE id = ? AND next_at = ? AND suspended = 0",
            next_at,
            entry.id,
            entry.next_at,
        )
        if claimed and next_at is not None:
            await self._add_job(tx, entry, next_at)
        return bool(claimed)

    async def wait_again(self, tx: Transaction, entry: Entry) -> None:
        """Its job came too early, or is missing, or waits for what is another time since the clock was set."""
        if entry.next_at is not None:
            await self._add_job(tx, entry, entry.next_at)

    async def _add_job(self, tx: Transaction, entry: Entry, at: float) -> None:
        await self._jobs.add(
            tx,
            CRON,
            {"entry": entry.id},
            organization_id=entry.organization_id,
            app_id=entry.app_id,
            key=entry.id,
            after=at - now(),
            moves=True,
        )


async def _record(tx: Transaction, type: str, actor: str, app: App, entry: Entry) -> None:
    facts: Mapping[str, Any] = {"entry": entry.number, "schedule": entry.schedule, "origin": entry.origin}
    await events.record(tx, type, organization_id=app.organization_id, actor=actor, app=app.name, **facts)


def _entry(row: Row) -> Entry:
    values = {name: row[name] for name in Entry.__dataclass_fields__}
    decoded = {
        "origin": Origin(row["origin"]),
        "concurrency": Concurrency(row["concurrency"]),
        "suspended": bool(row["suspended"]),
    }
    return Entry(**{**values, **decoded})
