"""Tables `events` (facts, written in the same transaction as the change they tell of) and `subscriptions` (how far each
subscriber inside the daemon has got with them)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from paasd.database import Database, Row, Transaction, now
from paasd.errors import PaasdError
from paasd.models import Event

_log = logging.getLogger(__name__)

TOPIC = "events"
"""What a transaction with an event in it tells of."""
_PIECE = 500
"""Rows deleted in one transaction, so that nobody waits long for the next one."""
_BATCH = 100
_LOOK_EVERY = 5.0
"""Seconds between two looks of who was not woken."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_MOST_UNDELIVERED = 10
"""Times `keep.events` that are kept at most for subscribers that do not get on."""


async def record(
    tx: Transaction, type: str, *, organization_id: str, actor: str, app: str | None = None, **data: Any
) -> None:
    """Add one event. `data` must be JSON and hold no secrets."""
    await tx.execute(
        "INSERT INTO events (at, type, organization_id, app, actor, data) VALUES (?, ?, ?, ?, ?, ?)",
        now(),
        type,
        organization_id,
        app,
        actor,
        json.dumps(data),
    )
    tx.tell(TOPIC)


class Events:
    """Reads the table, and keeps it short."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, organization_id: str, *, app: str | None = None, after: int | None = None, limit: int = 100
    ) -> list[Event]:
        """Oldest first: those after an id, or without one the newest."""
        where = "organization_id = ? AND id > ? AND (? IS NULL OR app = ?)"
        order = "DESC" if after is None else "ASC"
        rows = await self._database.fetch(
            f"SELECT * FROM events WHERE {where} ORDER BY id {order} LIMIT ?",  # noqa: S608 - constants only
            organization_id,
            after or 0,
            app,
            app,
            limit,
        )
        events = [_event(row) for row in rows]
        return events[::-1] if after is None else events

    async def follow(
        self, organization_id: str, *, app: str | None = None, after: int | None = None, limit: int = 100
    ) -> AsyncGenerator[Event, None]:
        """What `list` gives, then all that comes, for ever. It is read page by page, so that a slow reader costs no
        memory."""
        with self._database.watch(TOPIC) as told:
            while True:
                told.clear()
                page = await self.list(organization_id, app=app, after=after, limit=limit)
                for event in page:
                    yield event
                after = page[-1].id if page else after or 0
                if len(page) < limit:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_EVERY):
                            await told.wait()
                limit = _BATCH

    async def prune(self, keep: int) -> int:
        """Forget all but the newest `keep` of the box and what subscribers have still to get. Returns how many went."""
        row = await self._database.fetch_one(
            "SELECT max(min(newest - ?1, (SELECT coalesce(min(after_event), newest) FROM subscriptions)), newest - ?2)"
            " AS last FROM (SELECT coalesce(max(id), 0) AS newest FROM events)",
            max(1, keep),
            max(1, keep) * _MOST_UNDELIVERED,
        )
        last, deleted = row["last"] if row else 0, 0
        while True:
            async with self._database.transaction() as tx:
                count = await tx.execute(
                    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ? ORDER BY id LIMIT ?)",
                    last,
                    _PIECE,
                )
            deleted += count
            if count < _PIECE:
                return deleted


@dataclass(frozen=True)
class Subscriber:
    """Gets every event of `types` (all, if there are none) in order, at least once: after a failure, or when the daemon
    died, the same batch comes again. One that is new begins with the next event."""

    name: str
    take: Callable[[Sequence[Event]], Awaitable[None]]
    types: frozenset[str] = frozenset()
    timeout: float = 60.0
    """Seconds it may take for a batch."""


class Subscriptions:
    """Delivers events to the subscribers, each in a task of its own."""

    def __init__(
        self, database: Database, subscribers: Sequence[Subscriber], *, first_pause: float = _FIRST_PAUSE
    ) -> None:
        self._database = database
        self._subscribers = subscribers
        self._first_pause = first_pause
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        names = json.dumps([subscriber.name for subscriber in self._subscribers])
        async with self._database.transaction() as tx:
            await tx.execute(
                "DELETE FROM subscriptions WHERE subscriber NOT IN (SELECT value FROM json_each(?))", names
            )
            await tx.execute(
                "INSERT OR IGNORE INTO subscriptions SELECT value, (SELECT coalesce(max(id), 0) FROM events), ?"
                " FROM json_each(?)",
                now(),
                names,
            )
        self._tasks = [asyncio.create_task(self._deliver(subscriber)) for subscriber in self._subscribers]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, subscriber: Subscriber) -> None:
        cursor, pause = _Cursor(self._database, subscriber), self._first_pause
        with self._database.watch(TOPIC) as told:
            while True:
                told.clear()
                try:
                    more = await cursor.advance()
                except Exception as error:
                    detail = error.detail if isinstance(error, PaasdError) else repr(error)
                    _log.warning("events for %s are delivered again in %g s: %s", subscriber.name, pause, detail)
                    await asyncio.sleep(pause)
                    pause = min(_LONGEST_PAUSE, pause * 2)
                    continue
                pause = self._first_pause
                if not more:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_EVERY):
                            await told.wait()


class _Cursor:
    """How far one subscriber has got. Written down after each batch it took; behind events that it does not want only
    now and then, since these cost nothing to pass over again."""

    def __init__(self, database: Database, subscriber: Subscriber) -> None:
        self._database = database
        self._subscriber = subscriber
        self._at: int | None = None
        self._saved = 0

    async def advance(self) -> bool:
        """Hand over the next events. False when there was nothing."""
        if self._at is None:
            self._at = self._saved = await self._load()
        rows = await self._database.fetch("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", self._at, _BATCH)
        if not rows:
            return False
        types, last = self._subscriber.types, int(rows[-1]["id"])
        wanted = [_event(row) for row in rows if not types or row["type"] in types]
        if wanted:
            async with asyncio.timeout(self._subscriber.timeout):
                await self._subscriber.take(wanted)
        if wanted or last - self._saved >= _BATCH:
            await self._save(last)
        self._at = last
        return True

    async def _load(self) -> int:
        row = await self._database.fetch_one(
            "SELECT after_event FROM subscriptions WHERE subscriber = ?", self._subscriber.name
        )
        return int(row["after_event"]) if row else 0

    async def _save(self, at: int) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE subscriptions SET after_event = ?, moved_at = ? WHERE subscriber = ?",
                at,
                now(),
                self._subscriber.name,
            )
        self._saved = at


def _event(row: Row) -> Event:
    values = {name: row[name] for name in Event.__dataclass_fields__}
    return Event(**{**values, "data": json.loads(row["data"])})
