"""The tables of one-off commands and of the schedule, on a real SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from paasd.cron_entries import CRON, CronEntries, NewEntry, Origin
from paasd.database import Database, now
from paasd.errors import NotFound
from paasd.events import Events
from paasd.jobs.job import JobStatus
from paasd.jobs.table import Jobs, Viewer
from paasd.models import App, LogLine
from paasd.run.runs import Ending, Kind, NewRun, Run, Runs, RunStatus
from tests.unit.conftest import Store

MIGRATIONS = Path(__file__).parent.parent.parent / "paasd" / "migrations"


async def a_run(store: Store, app: App, cron_entry: int | None = None, ending: Ending | None = None) -> Run:
    kind = Kind.DETACHED if cron_entry is None else Kind.CRON
    new = NewRun(kind, kind, "true", "me", 60, 3, cron_entry)
    async with store.database.transaction() as tx:
        return await Runs(store.database, "box").add(tx, app, new, ending)


async def test_a_run_ends_once_and_tells_of_it(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    runs, run = Runs(store.database, "box"), await a_run(store, app)
    assert run.container.startswith("box-blog-v3-detached-1-")
    assert await runs.running() == [run]
    await runs.finish(run, Ending(RunStatus.FAILED, 3, at=run.created_at + 5))
    await runs.finish(run, Ending(RunStatus.SUCCEEDED, 0))
    found = await runs.get(app, 1)
    assert (found.status, found.exit_code, found.finished_at) == (RunStatus.FAILED, 3, run.created_at + 5)
    assert await runs.running() == []
    told = [e for e in await Events(store.database).list(app.organization_id) if e.type == "run.completed"]
    assert [(e.app, e.data["run"], e.data["status"], e.data["exit_code"]) for e in told] == [("blog", 1, "failed", 3)]
    with pytest.raises(NotFound, match="has no run 2"):
        await runs.get(app, 2)


async def test_only_the_end_of_the_output_is_kept(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    runs, run = Runs(store.database, "box"), await a_run(store, app)
    lines = [LogLine(float(i), "run.1", f"{i} ".ljust(1000, "x"), stderr=i % 2 == 0) for i in range(100)]
    await runs.finish(run, Ending(RunStatus.SUCCEEDED, 0, output=lines))
    output = (await runs.get(app, 1)).output
    assert sum(len(line.text) for line in output) <= 16 * 1024
    assert [line.at for line in output] == [float(i) for i in range(83, 100)]
    assert output[-1] == lines[-1]


async def test_the_newest_of_an_app_and_of_each_entry_stay(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    runs = Runs(store.database, "box")
    first = await a_run(store, app)
    for entry in (None, 1, 2, 1, 1, None, None, 2):
        run = await a_run(store, app, entry)
        await runs.finish(run, Ending(RunStatus.SUCCEEDED, 0))
    assert await runs.prune(2) == 2
    assert [run.number for run in await runs.of(app)] == [9, 8, 7, 6, 5, 4, 1]
    assert [run.number for run in await runs.of(app, cron_entry=1, scheduled=True)] == [6, 5]
    assert await runs.running() == [first]


async def test_what_was_not_started_is_history_only(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    run = await a_run(store, app, 1, Ending(RunStatus.MISSED, reason="away"))
    assert (run.status, run.reason, run.container) == (RunStatus.MISSED, "away", "")
    assert run.finished_at == run.created_at
    assert await Runs(store.database, "box").running() == []


async def test_an_entry_has_one_job_and_is_claimed_once(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    jobs = Jobs(store.database)
    entries = CronEntries(store.database, jobs)
    due = now() + 100
    async with store.database.transaction() as tx:
        number = await entries.add(tx, "me", app, NewEntry(Origin.COMMAND, "@daily", "true"), due)
    entry = await entries.get(app, number)

    async def waiting() -> list[float]:
        found = await jobs.list(Viewer(app.organization_id, box=False), status=JobStatus.QUEUED)
        assert all((job.type, job.key) == (CRON.name, entry.id) for job in found)
        return [job.run_at for job in found]

    assert await waiting() == pytest.approx([due], abs=1)
    async with store.database.transaction() as tx:
        assert await entries.claim(tx, entry, due + 50)
        assert not await entries.claim(tx, entry, due + 99)
    assert await waiting() == pytest.approx([due + 50], abs=1)
    await entries.suspend(store.admin, app, await entries.get(app, number), None)
    assert await waiting() == []
    async with store.database.transaction() as tx:
        assert not await entries.claim(tx, await entries.get(app, number), due)
        await entries.remove(tx, "me", app, entry)
        assert await entries.add(tx, "me", app, NewEntry(Origin.COMMAND, "@daily", "true"), due) == number + 1
    await store.apps.destroy(store.admin, app)
    assert await waiting() == []


async def test_jobs_and_their_numbers_survive_the_new_queue(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as old:
        for script in sorted(MIGRATIONS.glob("*.sql"))[:6]:
            old.executescript(script.read_text())
        old.execute("PRAGMA user_version = 6")
        add = "INSERT INTO jobs (queue, type, payload, priority, run_at, max_attempts, created_at)"
        old.execute(f"{add} VALUES ('cleanup', 'kept', '{{\"a\": 1}}', 0, 9e9, 5, 1)")
        old.execute(f"{add} VALUES ('cleanup', 'gone', '{{}}', 0, 9e9, 5, 1)")
        old.execute("DELETE FROM jobs WHERE type = 'gone'")
    old.close()
    database = Database(path)
    await database.open()
    try:
        found = await Jobs(database).list(Viewer("", box=True))
        assert [(job.id, job.type, job.payload) for job in found] == [(1, "kept", {"a": 1})]
        async with database.transaction() as tx:
            assert await Jobs(database).add(tx, CRON) == 3
    finally:
        await database.close()
