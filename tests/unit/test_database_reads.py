"""Reads beside writes: what was committed is seen by whoever reads next."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from paasd.database import Database


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


async def _read(database: Database) -> None:
    while True:
        await database.fetch("SELECT number FROM numbers")
