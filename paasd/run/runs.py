"""Table `one_offs`: one-off commands that run or ran, and how they ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from paasd import events
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import NotFound
from paasd.models import App, LogLine
from paasd.numbered import Table, by_number, delete_in_pieces, next_number

_MAX_OUTPUT = 16 * 1024
"""Characters kept of the end of a run's output."""


class Kind(StrEnum):
    ATTACHED = "attached"
    DETACHED = "detached"
    CRON = "cron"


class RunStatus(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"
    LOST = "lost"
    """It is not known how it ended, or it never began."""
    SKIPPED = "skipped"
    """Its time came when it was not to run."""
    MISSED = "missed"
    """Its time came while paasd was not running."""


@dataclass(frozen=True)
class NewRun:
    """`process`: the process type whose limits it has, and what it is called in logs."""

    kind: Kind
    process: str
    command: str
    created_by: str
    seconds: float
    release: int | None = None
    cron_entry: int | None = None
    due_at: float | None = None


@dataclass(frozen=True)
class Run:
    """`command` is text for people."""

    id: str
    organization_id: str
    app_id: str
    number: int
    kind: Kind
    container: str
    release: int | None
    command: str
    cron_entry: int | None
    """Number of the schedule's entry that it belongs to."""
    due_at: float | None
    """When the schedule wanted it."""
    status: RunStatus
    exit_code: int | None
    reason: str
    output: tuple[LogLine, ...]
    created_by: str
    created_at: float
    ends_by: float
    finished_at: float | None


@dataclass(frozen=True)
class Ending:
    status: RunStatus
    exit_code: int | None = None
    reason: str = ""
    output: Sequence[LogLine] = ()
    at: float | None = None


class Runs:
    def __init__(self, database: Database, label: str) -> None:
        self._database = database
        self._label = label

    async def add(self, tx: Transaction, app: App, new: NewRun, ending: Ending | None = None) -> Run:
        """Write down a run before it is started, or one that will not be."""
        id, number, at = new_id(), await next_number(tx, Table.ONE_OFFS, app.id), now()
        status = ending.status if ending else RunStatus.RUNNING
        await tx.execute(
            "INSERT INTO one_offs (id, organization_id, app_id, number, kind, container, release, command, cron_entry,"
            " due_at, status, reason, created_by, created_at, ends_by, finished_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            id,
            app.organization_id,
            app.id,
            number,
            new.kind,
            "" if ending else f"{self._label}-{app.name}-v{new.release}-{new.process}-{number}-{id[:6]}",
            new.release,
            new.command,
            new.cron_entry,
            new.due_at,
            status,
            ending.reason if ending else "",
            new.created_by,
            at,
            at + new.seconds,
            at if ending else None,
        )
        row = await tx.fetch_one("SELECT * FROM one_offs WHERE id = ?", id)
        assert row is not None
        return _run(row)

    async def finish(self, run: Run, ending: Ending) -> None:
        """Only once: a run that has ended, or whose app is gone, stays as it is."""
        async with self._database.transaction() as tx:
            changed = await tx.execute(
                "UPDATE one_offs SET status = ?, exit_code = ?, reason = ?, output = ?, finished_at = ?"
                " WHERE id = ? AND status = 'running'",
                ending.status,
                ending.exit_code,
                ending.reason,
                _packed(ending.output),
                ending.at or now(),
                run.id,
            )
            if changed:
                await record_end(tx, run, ending)

    async def running(self, app: App | None = None, cron_entry: int | None = None) -> list[Run]:
        """Those of the whole box, of an app, or of an entry of its schedule."""
        rows = await self._database.fetch(
            "SELECT * FROM one_offs WHERE status = 'running' AND (?1 IS NULL OR app_id = ?1)"
            " AND (?2 IS NULL OR cron_entry = ?2) ORDER BY created_at",
            app.id if app else None,
            cron_entry,
        )
        return [_run(row) for row in rows]

    async def get(self, app: App, number: int) -> Run:
        row = await by_number(self._database, Table.ONE_OFFS, app, number)
        if row is None:
            raise NotFound(f"{app.name} has no run {number}", hint=f"List them with: run:list {app.name}")
        return _run(row)

    async def of(
        self,
        app: App,
        *,
        cron_entry: int | None = None,
        scheduled: bool | None = None,
        before: int = 0,
        limit: int = 50,
    ) -> list[Run]:
        """Newest first, numbers under `before` when given; `scheduled`: only, or without, those of the schedule."""
        rows = await self._database.fetch(
            "SELECT * FROM one_offs WHERE organization_id = ?1 AND app_id = ?2 AND (?3 IS NULL OR cron_entry = ?3)"
            " AND (?4 IS NULL OR (kind = 'cron') = ?4) AND (?5 = 0 OR number < ?5) ORDER BY number DESC LIMIT ?6",
            app.organization_id,
            app.id,
            cron_entry,
            scheduled,
            before,
            limit,
        )
        return [_run(row) for row in rows]

    async def prune(self, keep: int) -> int:
        """Forget all but the newest `keep` of each app, and of each entry of its schedule. Returns how many went."""
        rows = await self._database.fetch(
            "SELECT id FROM (SELECT id, status, row_number() OVER (PARTITION BY app_id, cron_entry"
            " ORDER BY number DESC) AS age FROM one_offs) WHERE age > ? AND status != 'running'",
            max(1, keep),
        )
        return await delete_in_pieces(self._database, Table.ONE_OFFS, (row["id"] for row in rows))


async def record_end(tx: Transaction, run: Run, ending: Ending) -> None:
    row = await tx.fetch_one("SELECT name FROM apps WHERE id = ?", run.app_id)
    entry = {"entry": run.cron_entry} if run.cron_entry is not None else {}
    await events.record(
        tx,
        "cron.completed" if run.kind is Kind.CRON else "run.completed",
        organization_id=run.organization_id,
        actor=run.created_by,
        app=row["name"] if row else None,
        **entry,
        run=run.number,
        status=ending.status,
        exit_code=ending.exit_code,
        reason=ending.reason,
    )


def _packed(lines: Sequence[LogLine]) -> str:
    """The last lines, as many as are kept."""
    kept: list[tuple[float, bool, str]] = []
    room = _MAX_OUTPUT
    for line in reversed(lines):
        if room <= 0:
            break
        kept.append((line.at, line.stderr, line.text[-room:]))
        room -= len(line.text) + 1
    return json.dumps(kept[::-1])


def _run(row: Row) -> Run:
    values = {name: row[name] for name in Run.__dataclass_fields__}
    title = f"{'cron' if row['kind'] == Kind.CRON else 'run'}.{row['number']}"
    output = tuple(LogLine(at, title, text, stderr) for at, stderr, text in json.loads(row["output"]))
    decoded = {"kind": Kind(row["kind"]), "status": RunStatus(row["status"]), "output": output}
    return Run(**{**values, **decoded})
