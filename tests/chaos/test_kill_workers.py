"""`kill -9` of the process that runs jobs, at any moment: none is lost, and none that must not run twice does."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paasd.database import Database
from paasd.jobs.table import Jobs
from tests.box import ROOT
from tests.chaos.job_worker import AGAIN, ONCE

_JOBS = 3000
_KILLS = 8


@contextmanager
def working(database: Path, begun: Path) -> Iterator[None]:
    """A worker of its own process, killed after the block."""
    command = [sys.executable, "-m", "tests.chaos.job_worker", str(database), str(begun)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield
        assert process.poll() is None, "the worker died by itself"
    finally:
        process.kill()
        process.wait(10)


def lines(begun: Path) -> int:
    return begun.read_bytes().count(b"\n") if begun.exists() else 0


def wait_for_progress(begun: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while lines(begun) < count:
        assert time.monotonic() < deadline, f"only {lines(begun)} jobs were begun"
        time.sleep(0.002)


async def statuses(database: Database, type: str) -> Counter[str]:
    rows = await database.fetch("SELECT status, error FROM jobs WHERE type = ?", type)
    assert all(row["error"] == ("interrupted" if row["status"] == "dead" else "") for row in rows)
    return Counter(row["status"] for row in rows)


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_job_is_lost_and_none_runs_twice_that_must_not(tmp_path: Path, seed: int) -> None:
    chance, begun = random.Random(seed), tmp_path / "begun"
    database = Database(tmp_path / "state.db")
    await database.open()
    try:
        jobs = Jobs(database)
        async with database.transaction() as tx:
            for n in range(_JOBS):
                await jobs.add(tx, AGAIN if n % 2 else ONCE, {"n": n})
        for _ in range(_KILLS):
            with working(tmp_path / "state.db", begun):
                wait_for_progress(begun, lines(begun) + chance.randrange(1, 150))
                time.sleep(chance.random() / 50)
        with working(tmp_path / "state.db", begun):
            deadline = time.monotonic() + 60
            while await database.fetch("SELECT 1 FROM jobs WHERE status IN ('queued', 'running') LIMIT 1"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        ran = Counter(tuple(line.split()) for line in begun.read_text().splitlines())
        again = {int(n): count for (type, n), count in ran.items() if type == AGAIN.name}
        once = {int(n): count for (type, n), count in ran.items() if type == ONCE.name}
        assert set(again) == set(range(1, _JOBS, 2))
        assert await statuses(database, AGAIN.name) == {"done": _JOBS // 2}
        assert set(once.values()) == {1}
        ended = await statuses(database, ONCE.name)
        assert ended["done"] + ended["dead"] == _JOBS // 2
        assert 0 < ended["dead"] <= _KILLS * 4, "at most what the slots held at each kill"
        assert ended["done"] <= len(once) <= _JOBS // 2
    finally:
        await database.close()
