"""Reads beside writes: what was committed is seen by whoever reads next. And what is left of a database that failed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from paasd.database import Database, Derived
from paasd.errors import PaasdError


async def test_a_committed_row_is_seen_at_once_while_others_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    await database.open()
    readers: list[asyncio.Task[None]] = []
    try:
        async with database.transaction() as tx:
            await tx.execute("CREATE TABLE numbers (number INTEGER)")
            await tx.execute("INSERT INTO numbers VALUES (-2), (-1)")
        readers = [asyncio.create_task(_read(database)) for _ in range(4)]
        for number in range(300):
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO numbers VALUES (?)", number)
            assert await database.fetch_one("SELECT * FROM numbers WHERE number = ?", number)
    finally:
        for reader in readers:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        await database.close()


async def test_what_was_derived_is_good_until_something_is_committed(tmp_path: Path) -> None:
    database, made = Database(tmp_path / "state.db"), list[int]()

    async def count() -> list[int]:
        made.append(len(await database.fetch("SELECT * FROM numbers")))
        return [made[-1]]

    await database.open()
    try:
        async with database.transaction() as tx:
            await tx.execute("CREATE TABLE numbers (number INTEGER)")
        derived, briefly = Derived(database), Derived(database, 0.0)
        first = await derived.get(count)
        assert await derived.get(count) is first and made == [0]
        with contextlib.suppress(KeyError):
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO numbers VALUES (1)")
                raise KeyError
        assert await derived.get(count) is first, "what is undone changes nothing"
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO numbers VALUES (1)")
        assert await derived.get(count) == [1] and made == [0, 1]
        await briefly.get(count)
        await briefly.get(count)
        assert made == [0, 1, 1, 1]
    finally:
        await database.close()


async def _read(database: Database) -> None:
    while True:
        await database.fetch("SELECT number FROM numbers")


@pytest.mark.parametrize("damaged", [True, False])
async def test_a_database_that_cannot_be_opened_keeps_no_thread(tmp_path: Path, damaged: bool) -> None:
    # A thread that is left behind keeps the whole process from ending.
    path = tmp_path / "state.db"
    if damaged:
        path.write_bytes(b"not a database" * 500)
    else:
        with contextlib.closing(sqlite3.connect(path)) as newer:
            newer.execute("PRAGMA user_version = 9999")
    before = set(threading.enumerate())
    with pytest.raises(PaasdError):
        await Database(path).open()
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("asyncio"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()
