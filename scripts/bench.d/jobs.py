"""How fast queued jobs drain: claimed, run (doing nothing) and written down, on a state.db as the daemon has it."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from _common import machine, percentile, verdict

from paasd.config import JobsConfig
from paasd.database import Database
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler, Workers

TARGET = 500
_NOTHING = JobType("bench.nothing", Queue.NOTIFICATION)


async def add(database: Database, count: int) -> None:
    jobs = Jobs(database)
    async with database.transaction() as tx:
        for number in range(count):
            await jobs.add(tx, _NOTHING, {"number": number})


async def drained_per_second(database: Database, count: int) -> float:
    """From the start of the workers until the last job is written down as done."""
    await add(database, count)

    async def nothing(job: Job) -> None: ...

    workers = Workers(database, Jobs(database), JobsConfig(), [Handler(_NOTHING, nothing)])
    started = time.monotonic()
    await workers.start()
    while await database.fetch("SELECT 1 FROM jobs WHERE status != 'done' LIMIT 1"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    seconds = time.monotonic() - started
    await workers.stop()
    return count / seconds


async def transactions_per_second(database: Database, count: int) -> float:
    """The floor: one row changed in each of so many transactions."""
    ids = [row["id"] for row in await database.fetch("SELECT id FROM jobs LIMIT ?", count)]
    started = time.monotonic()
    for id in ids:
        async with database.transaction() as tx:
            await tx.execute("UPDATE jobs SET error = 'x' WHERE id = ?", id)
    return len(ids) / (time.monotonic() - started)


async def rounds(options: argparse.Namespace) -> list[tuple[float, float]]:
    """Jobs/s and transactions/s, taking turns."""
    measured = []
    with tempfile.TemporaryDirectory(prefix="paasd-bench-", dir=options.dir) as folder:
        for number in range(options.rounds):
            database = Database(Path(folder) / f"{number}.db")
            await database.open()
            try:
                jobs = await drained_per_second(database, options.jobs)
                measured.append((jobs, await transactions_per_second(database, options.jobs // 5)))
            finally:
                await database.close()
            print(f"  {measured[-1][0]:.0f} jobs/s; {measured[-1][1]:.0f} single-row transactions/s")
    return measured


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="where the database lies; not a file system in memory")
    options = parser.parse_args()
    print(f"{options.jobs} queued jobs, synchronous = FULL, {options.rounds} rounds ({machine()}):")
    measured = asyncio.run(rounds(options))
    slowest = min(jobs for jobs, _ in measured)
    print(f"  ratio to single-row transactions: {percentile([a / b for a, b in measured], 0.5):.2f}")
    return verdict(f"slowest round {slowest:.0f} jobs/s (target at least {TARGET})", slowest >= TARGET)


if __name__ == "__main__":
    os.umask(0o077)
    raise SystemExit(0 if main() else 1)
