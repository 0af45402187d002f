"""`state.db`: the one door to SQLite. WAL, one writer connection, one reader, numbered migrations.

Transactions are short: nothing is awaited inside one but its own statements.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite

from paasd import failpoints
from paasd.errors import DiskFull, PaasdError

Row = sqlite3.Row
_T = TypeVar("_T")

_PAGE = 4096
"""SQLite's page size, and so the least a database has."""


def _full() -> sqlite3.OperationalError:
    return sqlite3.OperationalError("database or disk is full")


def new_id() -> str:
    return uuid.uuid4().hex


def now() -> float:
    return time.time()


class Transaction:
    """Statements of one write transaction."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self.told: set[str] = set()

    def tell(self, topic: str) -> None:
        """Wake whoever watches the topic, once this is committed."""
        self.told.add(topic)

    async def execute(self, sql: str, *values: Any) -> int:
        """Run one statement; returns the number of rows it changed."""
        async with self._connection.execute(sql, values) as cursor:
            return cursor.rowcount

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        return list(await self._connection.execute_fetchall(sql, values))

    async def fetch_one(self, sql: str, *values: Any) -> Row | None:
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None


class Database:
    """Opened once by the daemon. `transaction()` writes, `fetch()` reads committed state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made = path.with_suffix(".made")
        self._lock = asyncio.Lock()
        self._watches: dict[str, set[asyncio.Event]] = {}
        self._writer: aiosqlite.Connection
        self._reader: aiosqlite.Connection

    @property
    def fresh(self) -> bool:
        """There never was one here."""
        return not self._path.exists() and not self._made.exists()

    async def open(self) -> None:
        """Open, check and migrate. Raises PaasdError when the file is damaged, newer than this paasd, or gone."""
        await asyncio.to_thread(self._require_what_was_made)
        try:
            self._writer = await self._connect()
            await self._check()
            await self._migrate()
            self._reader = await self._connect()
            await asyncio.to_thread(self._made.touch)
        except BaseException as error:
            await self.close()
            if not isinstance(error, sqlite3.DatabaseError):
                raise
            raise PaasdError(
                f"{self._path} cannot be opened: {error}",
                hint="Restore the newest backup of state.db; the apps keep serving meanwhile.",
            ) from error

    async def close(self) -> None:
        """Twice, or when it never was opened: nothing happens."""
        for name in ("_reader", "_writer"):
            connection: aiosqlite.Connection | None = self.__dict__.pop(name, None)
            if connection is not None:
                await connection.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One atomic change. An exception inside rolls everything back."""
        async with self._lock:
            tx = Transaction(self._writer)
            try:
                async with failpoints.call("database", _full):
                    await self._writer.execute("BEGIN IMMEDIATE")
                yield tx
                async with failpoints.call("database", _full):
                    await self._writer.execute("COMMIT")
            except BaseException as error:
                # Shielded so that a cancelled task never leaves the connection inside a transaction.
                await asyncio.shield(self._rollback())
                if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                    raise DiskFull(f"state.db cannot grow: {error}", hint="Free disk space, then try again.") from error
                raise
            finally:
                # After a failure too: a commit may have been made although its waiter was cancelled.
                for watch in [w for topic in tx.told for w in self._watches.get(topic, ())]:
                    watch.set()

    @contextmanager
    def watch(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set after each transaction that tells of the topic. Clear it before looking."""
        watch = asyncio.Event()
        watches = self._watches.setdefault(topic, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        # In one go: a statement that is read only in part holds all others of its connection at its own snapshot, and
        # they would not see what was committed since.
        return list(await self._reader.execute_fetchall(sql, values))

    async def fetch_one(self, sql: str, *values: Any) -> Row | None:
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    async def version(self) -> int:
        """Another one after each commit. Asked before looking: what was found then is good while it stays the same."""
        row = await self.fetch_one("PRAGMA data_version")  # of the reader: told by what other connections commit
        assert row is not None
        return int(row[0])

    async def _rollback(self) -> None:
        # A cancelled statement still runs: the connection's thread takes one after the other, so only there, behind it,
        # is it known whether a transaction is open.
        with contextlib.suppress(sqlite3.OperationalError):
            await self._writer.execute("ROLLBACK")

    async def _connect(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(self._path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        try:
            # FULL: what was acknowledged survives a power cut, not only a crash.
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
                await connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            await connection.close()  # its thread would keep the process from ending
            raise
        return connection

    def _require_what_was_made(self) -> None:
        """A new, empty database in place of a lost one would have every app removed as nobody's."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if self._made.exists() and size < _PAGE:  # which SQLite would take for a new one
            raise PaasdError(
                f"{self._path} is gone or empty, but this data directory has had one",
                hint=f"Restore the newest backup of it; the apps keep serving meanwhile. To begin with nothing instead,"
                f" remove {self._made} too: all apps of this paasd are removed then.",
            )

    async def _check(self) -> None:
        async with self._writer.execute("PRAGMA quick_check(1)") as cursor:
            row = await cursor.fetchone()
        if row is None or row[0] != "ok":
            raise sqlite3.DatabaseError(f"quick_check says {row[0] if row else 'nothing'}")

    async def _migrate(self) -> None:
        migrations = await asyncio.to_thread(_migrations)
        async with self._writer.execute("PRAGMA user_version") as cursor:
            row = await cursor.fetchone()
        current = row[0] if row else 0
        if current > len(migrations):
            raise PaasdError(
                f"state.db has schema {current}, this paasd knows only {len(migrations)}",
                hint="Install the paasd version that wrote it, or a newer one.",
            )
        for number, script in enumerate(migrations[current:], start=current + 1):
            await self._writer.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


class Derived(Generic[_T]):
    """What was made of the database's rows, until something is committed: for those who look again and again."""

    def __init__(self, database: Database, most: float = math.inf) -> None:
        self._database = database
        self._most = most
        """Seconds for which it is kept at most: for what depends on the time too."""
        self._kept: tuple[int, float, _T] | None = None

    async def get(self, make: Callable[[], Awaitable[_T]]) -> _T:
        """The same object as long as nothing changed."""
        version, at = await self._database.version(), time.monotonic()
        if self._kept is None or self._kept[0] != version or at >= self._kept[1] + self._most:
            self._kept = version, at, await make()
        return self._kept[2]


def _migrations() -> Sequence[str]:
    folder = resources.files("paasd") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [f.read_text() for f in files]
