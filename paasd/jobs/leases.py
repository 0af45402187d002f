"""Who runs a job: claiming, renewing, giving back and ending, many at a time in one transaction.

A lease is fenced by its owner: what a worker reports about a job that is not leased to it any more is passed over.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from paasd import events
from paasd.clock import steady
from paasd.config import JobsConfig
from paasd.database import Database, Transaction, new_id
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs, job_of, queued_twin

INTERRUPTED = "interrupted"

_MAX_ERROR = 2000
_ACTOR = "paasd"
_FREE = "lease_owner = NULL, lease_until = NULL"
_MINE = "status = 'running' AND lease_owner = ? AND id IN (SELECT value FROM json_each(?))"


class Ending(Enum):
    DONE = auto()
    FAILED = auto()
    """Tried again later, as long as attempts are left."""
    DEAD = auto()
    GIVEN_BACK = auto()
    """Ended from outside; does not count as an attempt."""


@dataclass(frozen=True)
class Outcome:
    id: int
    ending: Ending
    error: str = ""


@dataclass(frozen=True)
class Wanted:
    """`free` jobs of any type to begin now, `ahead` more repeatable ones that will not wait long for a slot."""

    queue: Queue
    free: int
    ahead: int


class Leases:
    """One owner's leases. `types` are the jobs it can run; others are left queued."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        config: JobsConfig,
        types: Iterable[JobType],
        clock: Callable[[], float] = steady,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._config = config
        self._types: Mapping[str, JobType] = {type.name: type for type in types}
        self._all = json.dumps(sorted(self._types))
        self._repeatable = json.dumps(sorted(t.name for t in self._types.values() if t.repeatable))
        self._clock = clock
        self._owner = new_id()

    async def turn(self, outcomes: Collection[Outcome], wanted: Sequence[Wanted]) -> tuple[list[Job], float | None]:
        """Write down what ended and claim what comes next, in one transaction. Returns the claimed in the order they
        are to begin, and when the next job's time comes (None: nothing waits for its time)."""
        async with self._database.transaction() as tx:
            await self._settle(tx, outcomes)
            claimed = [job for each in wanted for job in await self._claim(tx, each)]
            row = await tx.fetch_one(
                "SELECT min(run_at) AS at FROM jobs WHERE status = 'queued' AND run_at > ?", self._clock()
            )
        return claimed, row["at"] if row else None

    async def renew(self, ids: Collection[int]) -> set[int]:
        """Keep the leases; returns those of `ids` that are lost."""
        async with self._database.transaction() as tx:
            rows = await tx.fetch(
                f"UPDATE jobs SET lease_until = ? WHERE {_MINE} RETURNING id",  # noqa: S608 - constants only
                self._clock() + self._config.lease,
                self._owner,
                json.dumps(list(ids)),
            )
        return set(ids) - {row["id"] for row in rows}

    async def take_over(self) -> int:
        """At start: whatever another daemon ran, it runs no more. Returns how many jobs that were."""
        return await self._reclaim("lease_owner IS NOT ?", self._owner)

    async def reclaim_expired(self) -> int:
        return await self._reclaim("lease_owner IS NOT ? AND lease_until < ?", self._owner, self._clock())

    async def give_back(self, outcomes: Collection[Outcome], still_running: Collection[int]) -> None:
        """At stop: write down what ended; what never began is queued again."""
        async with self._database.transaction() as tx:
            await self._settle(tx, outcomes)
            rows = await tx.fetch("SELECT id FROM jobs WHERE status = 'running' AND lease_owner = ?", self._owner)
            rest = [Outcome(row["id"], Ending.GIVEN_BACK) for row in rows if row["id"] not in still_running]
            await self._settle(tx, rest)

    async def _claim(self, tx: Transaction, wanted: Wanted) -> list[Job]:
        claimed = await self._claim_some(tx, wanted.queue, self._all, wanted.free)
        if len(claimed) == wanted.free:
            claimed += await self._claim_some(tx, wanted.queue, self._repeatable, wanted.ahead)
        return claimed

    async def _claim_some(self, tx: Transaction, queue: Queue, types: str, limit: int) -> list[Job]:
        if limit <= 0:
            return []
        time = self._clock()
        rows = await tx.fetch(
            "UPDATE jobs SET status = 'running', attempts = attempts + 1, lease_owner = ?, lease_until = ?,"
            " started_at = ? WHERE id IN (SELECT id FROM jobs AS j WHERE status = 'queued' AND queue = ?"
            " AND run_at <= ? AND type IN (SELECT value FROM json_each(?)) AND (key IS NULL OR NOT EXISTS"
            " (SELECT 1 FROM jobs WHERE status = 'running' AND type = j.type AND key = j.key"
            " AND organization_id IS j.organization_id))"
            " ORDER BY priority DESC, run_at, id LIMIT ?) RETURNING *",
            self._owner,
            time + self._config.lease,
            time,
            queue,
            time,
            types,
            limit,
        )
        return sorted(map(job_of, rows), key=lambda job: (-job.priority, job.run_at, job.id))

    async def _settle(self, tx: Transaction, outcomes: Collection[Outcome]) -> None:
        if not outcomes:
            return
        done = [outcome.id for outcome in outcomes if outcome.ending is Ending.DONE]
        await tx.execute(
            f"UPDATE jobs SET status = 'done', error = '', finished_at = ?, {_FREE} WHERE every IS NULL AND {_MINE}",  # noqa: S608
            self._clock(),
            self._owner,
            json.dumps(done),
        )
        by_id = {outcome.id: outcome for outcome in outcomes}
        rest = await tx.fetch(f"SELECT * FROM jobs WHERE {_MINE}", self._owner, json.dumps(list(by_id)))  # noqa: S608
        for row in rest:
            await self._settle_one(tx, job_of(row), by_id[row["id"]])

    async def _settle_one(self, tx: Transaction, job: Job, outcome: Outcome) -> None:
        time, error = self._clock(), outcome.error[:_MAX_ERROR]
        if outcome.ending is Ending.DONE and job.every is not None:
            await self._queue_again(tx, job, time + job.every, attempts=0, error="")
        elif outcome.ending is Ending.GIVEN_BACK:
            await self._queue_again(tx, job, job.run_at, attempts=job.attempts - 1, error=job.error)
        elif outcome.ending is Ending.FAILED and job.attempts < job.max_attempts:
            await self._queue_again(tx, job, time + self._delay(job.attempts), attempts=job.attempts, error=error)
        else:
            await self._bury(tx, job, error)

    def _delay(self, attempts: int) -> float:
        """Doubled with each attempt; scattered, so that what failed together does not come back together."""
        most = min(self._config.back_off_limit, self._config.back_off * 2.0 ** min(attempts - 1, 50))
        return most * random.uniform(0.5, 1.0)

    async def _queue_again(self, tx: Transaction, job: Job, run_at: float, *, attempts: int, error: str) -> None:
        """A job of the same key that was added meanwhile does this one's work too."""
        if twin := await queued_twin(tx, job):
            await tx.execute("UPDATE jobs SET every = coalesce(every, ?) WHERE id = ?", job.every, twin.id)
            await tx.execute(
                f"UPDATE jobs SET status = 'done', every = NULL, error = ?, finished_at = ?, {_FREE} WHERE id = ?",  # noqa: S608
                error,
                self._clock(),
                job.id,
            )
        else:
            await tx.execute(
                f"UPDATE jobs SET status = 'queued', run_at = ?, attempts = ?, error = ?, {_FREE}, finished_at = ?"  # noqa: S608
                " WHERE id = ?",
                run_at,
                attempts,
                error,
                self._clock(),
                job.id,
            )

    async def _bury(self, tx: Transaction, job: Job, error: str) -> None:
        await tx.execute(
            f"UPDATE jobs SET status = 'dead', every = NULL, error = ?, finished_at = ?, {_FREE} WHERE id = ?",  # noqa: S608
            error,
            self._clock(),
            job.id,
        )
        await _record_death(tx, job, error)
        if job.every is not None:
            await self._jobs.add(
                tx,
                self._types[job.type],
                job.payload,
                organization_id=job.organization_id,
                app_id=job.app_id,
                key=job.key,
                after=job.every,
                priority=job.priority,
                every=job.every,
            )

    async def _reclaim(self, condition: str, *values: object) -> int:
        """Take jobs from owners that are gone: queue what may run again, give up the rest. Those of types that this
        daemon does not know are left to one that does."""
        known = "status = 'running' AND type IN (SELECT value FROM json_each(?))"
        async with self._database.transaction() as tx:
            rows = await tx.fetch(f"SELECT * FROM jobs WHERE {known} AND {condition}", self._all, *values)  # noqa: S608
            for job in map(job_of, rows):
                if self._types[job.type].repeatable and job.attempts < job.max_attempts:
                    await self._queue_again(tx, job, self._clock(), attempts=job.attempts, error=INTERRUPTED)
                else:
                    await self._bury(tx, job, INTERRUPTED)
        return len(rows)


async def _record_death(tx: Transaction, job: Job, error: str) -> None:
    """The box's own jobs are told to its first organization."""
    row = await tx.fetch_one(
        "SELECT coalesce(?, (SELECT id FROM organizations ORDER BY created_at LIMIT 1)) AS organization,"
        " (SELECT name FROM apps WHERE id = ?) AS app",
        job.organization_id,
        job.app_id,
    )
    if row is None or row["organization"] is None:
        return
    await events.record(
        tx,
        "job.dead",
        organization_id=row["organization"],
        actor=_ACTOR,
        app=row["app"],
        job=job.id,
        queue=job.queue,
        job_type=job.type,
        attempts=job.attempts,
        reason=error,
    )
