"""Table `events`: facts, written in the same transaction as the change they tell of."""

from __future__ import annotations

import json
from typing import Any

from paasd.database import Database, Transaction, now


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


_PIECE = 500
"""Rows deleted in one transaction, so that nobody waits long for the next one."""


class Events:
    """Reads the table, and keeps it short."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, organization_id: str, *, app: str | None = None, after: int = 0, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Oldest first; without `after` the newest `limit` of them."""
        where = "organization_id = ? AND id > ? AND (? IS NULL OR app = ?)"
        order = "ASC" if after else "DESC"
        rows = await self._database.fetch(
            f"SELECT * FROM events WHERE {where} ORDER BY id {order} LIMIT ?",  # noqa: S608 - constants only
            organization_id,
            after,
            app,
            app,
            limit,
        )
        events = [{**dict(row), "data": json.loads(row["data"])} for row in rows]
        return events if after else events[::-1]

    async def prune(self, keep: int) -> int:
        """Forget all but the newest `keep` of the box. Returns how many went."""
        row = await self._database.fetch_one("SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?", max(1, keep))
        last, deleted = row["id"] if row else 0, 0
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
