"""Rows that are numbered per app (builds, releases, deployments): the next number, one by number, a page of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from enum import StrEnum

from paasd.database import Database, Row, Transaction
from paasd.models import App

_PIECE = 200
"""Rows deleted in one transaction, so that nobody waits long for the next one."""


class Table(StrEnum):
    """The numbered tables; names that go into SQL come from here only."""

    BUILDS = "builds"
    RELEASES = "releases"
    DEPLOYMENTS = "deployments"
    ONE_OFFS = "one_offs"


async def next_number(tx: Transaction, table: Table, app_id: str) -> int:
    """One more than the highest of the app: the row that has it is never pruned."""
    row = await tx.fetch_one(f"SELECT max(number) AS top FROM {table} WHERE app_id = ?", app_id)  # noqa: S608
    return ((row["top"] if row else None) or 0) + 1


async def by_number(database: Database, table: Table, app: App, number: int) -> Row | None:
    return await database.fetch_one(
        f"SELECT * FROM {table} WHERE organization_id = ? AND app_id = ? AND number = ?",  # noqa: S608
        app.organization_id,
        app.id,
        number,
    )


async def page(database: Database, table: Table, app: App, before: int, limit: int) -> list[Row]:
    """Newest first, numbers under `before` unless that is 0."""
    return await database.fetch(
        f"SELECT * FROM {table} WHERE organization_id = ? AND app_id = ? AND (? = 0 OR number < ?)"  # noqa: S608
        " ORDER BY number DESC LIMIT ?",
        app.organization_id,
        app.id,
        before,
        before,
        limit,
    )


async def delete_in_pieces(database: Database, table: Table, ids: Iterable[str]) -> int:
    """Delete rows by id in short transactions. Returns how many there were."""
    rest, deleted = iter(ids), 0
    while piece := list(itertools.islice(rest, _PIECE)):
        marks = ", ".join("?" * len(piece))
        async with database.transaction() as tx:
            deleted += await tx.execute(f"DELETE FROM {table} WHERE id IN ({marks})", *piece)  # noqa: S608
    return deleted
