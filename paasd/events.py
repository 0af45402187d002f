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


class Events:
    """Reads the table."""

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
