"""Tasks are cancelled at any moment; the database must not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paasd.database import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "state.db")
    await database.open()
    yield database
    await database.close()


async def _write(database: Database, name: str) -> None:
    async with database.transaction() as tx:
        await tx.execute("INSERT INTO organizations VALUES (?, ?, 0)", name, name)
        await tx.execute("UPDATE organizations SET created_at = 1 WHERE id = ?", name)


@pytest.mark.parametrize("turns", range(1, 40))
async def test_a_cancelled_transaction_is_whole_or_nothing_and_blocks_no_other(database: Database, turns: int) -> None:
    """Cancelled after a few turns of the loop: before BEGIN, during it, during a statement, during COMMIT."""
    task = asyncio.create_task(_write(database, "cancelled"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await _write(database, "next")
    names = {row["name"]: row["created_at"] for row in await database.fetch("SELECT * FROM organizations")}
    assert names.pop("next") == 1
    assert names in ({}, {"cancelled": 1})


async def test_many_cancelled_at_once(database: Database) -> None:
    tasks = [asyncio.create_task(_write(database, f"c{i}")) for i in range(50)]
    for task in tasks:
        await asyncio.sleep(0.0005)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5):
        await _write(database, "last")


async def test_whoever_watches_is_woken_once_the_change_can_be_read(database: Database) -> None:
    with database.watch("organizations") as watch, database.watch("users") as other:
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO organizations VALUES ('a', 'a', 0)")
            tx.tell("organizations")
            await asyncio.sleep(0)
            assert not watch.is_set()
        assert watch.is_set() and not other.is_set()
        assert await database.fetch("SELECT * FROM organizations WHERE id = 'a'")


@pytest.mark.parametrize("turns", range(1, 40))
async def test_no_committed_change_goes_unheard_because_its_writer_was_cancelled(
    database: Database, turns: int
) -> None:
    async def write() -> None:
        async with database.transaction() as tx:
            tx.tell("organizations")
            await tx.execute("INSERT INTO organizations VALUES ('a', 'a', 0)")

    with database.watch("organizations") as watch:
        task = asyncio.create_task(write())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert watch.is_set() or not await database.fetch("SELECT * FROM organizations")
