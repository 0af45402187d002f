"""A process that runs jobs until it is killed, for test_kill_workers.py. Writes down each job that it begins."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from paasd.config import JobsConfig
from paasd.database import Database
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler, Workers

AGAIN = JobType("chaos.again", Queue.NOTIFICATION, max_attempts=1000)
ONCE = JobType("chaos.once", Queue.METRICS, repeatable=False)


async def main(database_path: Path, begun: Path) -> None:
    file = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def run(job: Job) -> None:
        os.write(file, f"{job.type} {job.payload['n']}\n".encode())
        await asyncio.sleep(0.002 * (job.payload["n"] % 5))

    database = Database(database_path)
    await database.open()
    config = JobsConfig(lease=3600, metrics=4)
    workers = Workers(database, Jobs(database), config, [Handler(type, run) for type in (AGAIN, ONCE)])
    await workers.start()
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
