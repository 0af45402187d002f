"""Table `jobs`: what is to be done, added in the transaction of the change it follows from. `leases.py` tells how a job
is claimed and ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paasd import events
from paasd.clock import steady
from paasd.database import Database, Row, Transaction
from paasd.errors import Conflict, NotFound
from paasd.jobs.job import Job, JobStatus, JobType, Queue
from paasd.models import Actor

TOPIC = "jobs"
"""What a transaction tells of when there may be a job to claim."""

_PIECE = 500
"""Rows deleted in one transaction, so that nobody waits long for the next one."""
_VISIBLE = "(organization_id = ? OR (? AND organization_id IS NULL))"


@dataclass(frozen=True)
class Viewer:
    """Whose jobs are asked for: an organization's, and the box's own for who may see the box."""

    organization_id: str
    box: bool


class Jobs:
    """`clock` gives the time that `run_at` is compared with."""

    def __init__(self, database: Database, clock: Callable[[], float] = steady) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self,
        tx: Transaction,
        type: JobType,
        payload: Mapping[str, Any] | None = None,
        *,
        organization_id: str | None = None,
        app_id: str | None = None,
        key: str | None = None,
        after: float = 0.0,
        priority: int = 0,
        every: float | None = None,
        moves: bool = False,
    ) -> int:
        """Queue a job to run in `after` seconds; returns its id. The payload must be JSON and hold no secrets.

        When one of its type and key waits already, that one stays as it is, unless this one `moves` it: then it takes
        this one's payload, time and priority. `every` makes it (also one that runs now) come again.
        """
        values = (json.dumps(dict(payload or {})), self._clock() + after, priority)
        tx.tell(TOPIC)
        if key is not None:
            if present := await _present(tx, organization_id, type.name, key, every, values if moves else None):
                return present
        row = await tx.fetch_one(
            "INSERT INTO jobs (organization_id, app_id, queue, type, payload, run_at, priority, key, every,"
            " max_attempts, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            organization_id,
            app_id,
            type.queue,
            type.name,
            *values,
            key,
            every,
            type.max_attempts,
            self._clock(),
        )
        assert row is not None
        return int(row["id"])

    async def newest(self) -> float:
        """When a job was last added, begun or ended; 0 without any."""
        row = await self._database.fetch_one(
            "SELECT max(max(created_at, ifnull(started_at, 0), ifnull(finished_at, 0))) AS at FROM jobs"
        )
        return float(row["at"] or 0) if row else 0.0

    async def cancel(self, tx: Transaction, type: JobType, key: str, *, organization_id: str | None = None) -> None:
        """Forget the job of that key that waits, and let one that runs not come again."""
        where = "type = ? AND key = ? AND organization_id IS ?"
        await tx.execute(f"DELETE FROM jobs WHERE status = 'queued' AND {where}", type.name, key, organization_id)  # noqa: S608
        await tx.execute(
            f"UPDATE jobs SET every = NULL WHERE status = 'running' AND {where}",  # noqa: S608
            type.name,
            key,
            organization_id,
        )

    async def list(
        self,
        viewer: Viewer,
        *,
        queue: Queue | None = None,
        status: JobStatus | None = None,
        before: int = 0,
        limit: int = 50,
    ) -> list[Job]:
        """Newest first, ids under `before` when given."""
        rows = await self._database.fetch(
            f"SELECT * FROM jobs WHERE {_VISIBLE} AND (? IS NULL OR queue = ?) AND (? IS NULL OR status = ?)"  # noqa: S608
            " AND (? = 0 OR id < ?) ORDER BY id DESC LIMIT ?",
            viewer.organization_id,
            viewer.box,
            queue,
            queue,
            status,
            status,
            before,
            before,
            limit,
        )
        return [job_of(row) for row in rows]

    async def get(self, viewer: Viewer, id: int) -> Job:
        row = await self._database.fetch_one(
            f"SELECT * FROM jobs WHERE {_VISIBLE} AND id = ?",  # noqa: S608
            viewer.organization_id,
            viewer.box,
            id,
        )
        if row is None:
            raise NotFound(f"no job {id}", hint="List them with: jobs")
        return job_of(row)

    async def retry(self, actor: Actor, viewer: Viewer, id: int) -> Job:
        """Run a dead job, or one that waits for its time, now and with all its attempts. Raises Conflict."""
        async with self._database.transaction() as tx:
            job = await _visible(tx, viewer, id)
            if job.status not in (JobStatus.DEAD, JobStatus.QUEUED):
                raise Conflict(f"job {id} is {job.status}", hint="Only dead and queued jobs can be tried again.")
            if job.status is JobStatus.DEAD and job.key is not None:
                if twin := await _with_key(tx, "queued", job.organization_id, job.type, job.key):
                    raise Conflict(
                        f"job {twin.id} does the same and is queued", hint=f"Run that one: jobs:retry {twin.id}"
                    )
            await tx.execute(
                "UPDATE jobs SET status = 'queued', run_at = ?, attempts = 0, finished_at = NULL WHERE id = ?",
                self._clock(),
                id,
            )
            await _record(tx, "job.retried", actor, job)
            tx.tell(TOPIC)
        return await self.get(viewer, id)

    async def discard(self, actor: Actor, viewer: Viewer, id: int) -> None:
        """Forget a job. Raises Conflict for one that runs or comes again by itself."""
        async with self._database.transaction() as tx:
            job = await _visible(tx, viewer, id)
            if job.status is JobStatus.RUNNING:
                raise Conflict(f"job {id} is running", hint=f"Wait until it has ended: jobs:info {id}")
            if job.every is not None:
                raise Conflict(
                    f"job {id} comes again every {job.every:g} s, as long as what it serves is there",
                    hint=f"It can be run now: jobs:retry {id}",
                )
            await tx.execute("DELETE FROM jobs WHERE id = ?", id)
            await _record(tx, "job.discarded", actor, job)

    async def prune(self, keep: int) -> int:
        """Forget all but the newest `keep` jobs that are done, and as many dead ones. Returns how many went."""
        return sum([await self._prune(status, max(0, keep)) for status in (JobStatus.DONE, JobStatus.DEAD)])

    async def _prune(self, status: JobStatus, keep: int) -> int:
        row = await self._database.fetch_one(
            "SELECT id FROM jobs WHERE status = ? ORDER BY id DESC LIMIT 1 OFFSET ?", status, keep
        )
        last, deleted = row["id"] if row else 0, 0
        while True:
            async with self._database.transaction() as tx:
                count = await tx.execute(
                    "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE status = ? AND id <= ? LIMIT ?)",
                    status,
                    last,
                    _PIECE,
                )
            deleted += count
            if count < _PIECE:
                return deleted


async def queued_twin(tx: Transaction, job: Job) -> Job | None:
    """The job of the same type and key that waits."""
    return await _with_key(tx, "queued", job.organization_id, job.type, job.key) if job.key is not None else None


async def _present(
    tx: Transaction,
    organization_id: str | None,
    type: str,
    key: str,
    every: float | None,
    values: tuple[str, float, int] | None,
) -> int | None:
    """The job that makes another of its key needless, brought up to date; None when there is none."""
    if every is not None and (running := await _with_key(tx, "running", organization_id, type, key)):
        await tx.execute("UPDATE jobs SET every = ? WHERE id = ?", every, running.id)
        return running.id
    waiting = await _with_key(tx, "queued", organization_id, type, key)
    if waiting is None:
        return None
    if values is not None:
        await tx.execute("UPDATE jobs SET payload = ?, run_at = ?, priority = ? WHERE id = ?", *values, waiting.id)
    await tx.execute("UPDATE jobs SET every = coalesce(?, every) WHERE id = ?", every, waiting.id)
    return waiting.id


async def _with_key(tx: Transaction, status: str, organization_id: str | None, type: str, key: str) -> Job | None:
    row = await tx.fetch_one(
        "SELECT * FROM jobs WHERE status = ? AND coalesce(organization_id, '') = ? AND type = ? AND key = ?",
        status,
        organization_id or "",
        type,
        key,
    )
    return job_of(row) if row else None


async def _visible(tx: Transaction, viewer: Viewer, id: int) -> Job:
    row = await tx.fetch_one(
        f"SELECT * FROM jobs WHERE {_VISIBLE} AND id = ?",  # noqa: S608
        viewer.organization_id,
        viewer.box,
        id,
    )
    if row is None:
        raise NotFound(f"no job {id}", hint="List them with: jobs")
    return job_of(row)


async def _record(tx: Transaction, type: str, actor: Actor, job: Job) -> None:
    await events.record(
        tx,
        type,
        organization_id=actor.organization_id,
        actor=actor.name,
        job=job.id,
        queue=job.queue,
        job_type=job.type,
    )


def job_of(row: Row) -> Job:
    values = {name: row[name] for name in Job.__dataclass_fields__}
    decoded = {"payload": json.loads(row["payload"]), "queue": Queue(row["queue"]), "status": JobStatus(row["status"])}
    return Job(**{**values, **decoded})
