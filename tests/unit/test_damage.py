"""A state.db that is damaged or gone: refused with a remedy, never answered from as if nothing were wrong."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from paasd.database import Database
from paasd.errors import DatabaseDamaged, PaasdError, from_exception
from tests.unit.conftest import Store

PAGE = 4096


async def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    tables = await database.fetch("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return {t["name"]: [tuple(row) for row in await database.fetch(f"SELECT * FROM {t['name']}")] for t in tables}  # noqa: S608


async def filled(store: Store, path: Path) -> tuple[bytes, dict[str, list[tuple[object, ...]]]]:
    """The file of a database with some pages of everything, and all its rows."""
    for number in range(40):
        await store.apps.create(store.admin, f"app-{number}")
    rows = await contents(store.database)
    await store.database.close()
    return path.read_bytes(), rows


@pytest.mark.parametrize("garbage", ["random", "zeros"])
async def test_damaged_pages_are_noticed(store: Store, tmp_path: Path, garbage: str) -> None:
    """Fifty times one page is lost, as a disk does it: no other exception, no other rows."""
    whole, rows = await filled(store, tmp_path / "state.db")
    chance, seen = random.Random(garbage), {"refused": 0, "harmless": 0}
    path = tmp_path / "damaged.db"
    for _ in range(50):
        start = chance.randrange(len(whole) // PAGE) * PAGE
        page = chance.randbytes(PAGE) if garbage == "random" else bytes(PAGE)
        path.write_bytes(whole[:start] + page + whole[start + PAGE :])
        database = Database(path)
        try:
            await database.open()
            assert await contents(database) == rows
            seen["harmless"] += 1
        except PaasdError as error:
            assert "backup" in error.hint
            seen["refused"] += 1
        finally:
            await database.close()
            for other in tmp_path.glob("damaged.db-*"):
                other.unlink()
    assert seen["refused"] > 40, seen


async def test_damage_met_while_it_is_used_says_what_to_do(store: Store, tmp_path: Path) -> None:
    await filled(store, tmp_path / "state.db")
    database = Database(tmp_path / "state.db")
    await database.open()
    (tmp_path / "state.db-wal").unlink(missing_ok=True)
    with (tmp_path / "state.db").open("r+b") as file:
        file.seek(PAGE)
        file.write(random.Random(1).randbytes(200 * PAGE))
    with pytest.raises(sqlite3.DatabaseError) as caught:
        await contents(database)
    told = from_exception(caught.value)
    await database.close()
    assert isinstance(told, DatabaseDamaged) and "backup" in told.hint


async def test_a_truncated_file_is_refused(store: Store, tmp_path: Path) -> None:
    whole, _ = await filled(store, tmp_path / "state.db")
    for size in (0, 1, PAGE - 1, PAGE, len(whole) // 2, len(whole) - PAGE):
        (tmp_path / "state.db").write_bytes(whole[:size])
        with pytest.raises(PaasdError, match=r"state\.db") as caught:
            await Database(tmp_path / "state.db").open()
        assert "backup" in caught.value.hint, size


async def test_a_database_that_is_gone_is_not_begun_anew(store: Store, tmp_path: Path) -> None:
    await store.database.close()
    (tmp_path / "state.db").unlink()
    with pytest.raises(PaasdError, match="gone") as caught:
        await Database(tmp_path / "state.db").open()
    assert str(tmp_path / "state.made") in caught.value.hint
    assert not (tmp_path / "state.db").exists()
    (tmp_path / "state.made").unlink()
    again = Database(tmp_path / "state.db")
    await again.open()
    await again.close()
