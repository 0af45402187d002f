"""Runs jobs: slots per queue, time limits, leases renewed while handlers run. One per daemon, owns no table.

One loop talks to the database. Each of its turns writes down all jobs that ended since the last and claims the next
ones, so that many short jobs share a commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from paasd import failpoints
from paasd.clock import steady
from paasd.config import JobsConfig
from paasd.database import Database
from paasd.errors import PaasdError, from_exception
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.leases import INTERRUPTED, Ending, Leases, Outcome, Wanted
from paasd.jobs.table import TOPIC, Jobs

_log = logging.getLogger(__name__)

_AHEAD = 0.1
"""Seconds of work that are claimed ahead of free slots, judged by how long the last jobs took."""
_MOST_AHEAD = 200
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds until the database is tried again after it failed, doubled each time."""
_LAST_WORDS = 10.0
"""Seconds that cancelled handlers get to end when the daemon stops."""


@dataclass(frozen=True)
class Handler:
    """What runs the jobs of a type. `every`: there is always one of the box's own, this many seconds after the last."""

    type: JobType
    run: Callable[[Job], Awaitable[None]]
    every: float | None = None


@dataclass
class _Lane:
    """One queue's slots."""

    queue: Queue
    slots: int
    running: dict[int, asyncio.Task[Outcome]] = field(default_factory=dict)
    waiting: deque[Job] = field(default_factory=deque)
    pace: float = 1.0
    """Seconds a job takes, of late."""

    def wanted(self) -> Wanted:
        ahead = min(_MOST_AHEAD, int(self.slots * _AHEAD / max(self.pace, 0.001)))
        free = self.slots - len(self.running) - len(self.waiting)
        # Half of the stock has to be gone, so that claims come in batches.
        return Wanted(self.queue, max(0, free), ahead - len(self.waiting) if len(self.waiting) <= ahead // 2 else 0)

    def ids(self) -> list[int]:
        return [*self.running, *(job.id for job in self.waiting)]


class Workers:
    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        config: JobsConfig,
        handlers: Sequence[Handler],
        clock: Callable[[], float] = steady,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._handlers = {handler.type.name: handler for handler in handlers}
        self._clock = clock
        self._leases = Leases(database, jobs, config, (handler.type for handler in handlers), clock)
        self._renew_every = max(0.05, config.lease / 3)
        self._renew_at = 0.0
        self._lanes = {queue: _Lane(queue, max(1, getattr(config, queue.value))) for queue in Queue}
        self._ended: list[Outcome] = []
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Take over what the former daemon left, then begin."""
        if taken := await self._leases.take_over():
            _log.info("%s jobs were interrupted by the end of the last daemon", taken)
        async with self._database.transaction() as tx:
            for handler in self._handlers.values():
                if handler.every is not None:
                    await self._jobs.add(tx, handler.type, key=handler.type.name, every=handler.every)
        self._loop_task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        """Cancel what runs and queue it again, unless it must not run twice."""
        if self._loop_task is None:
            return
        self._closing = True
        self._loop_task.cancel()
        await asyncio.gather(self._loop_task, return_exceptions=True)
        tasks = [task for lane in self._lanes.values() for task in lane.running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)
        still_running = [id for lane in self._lanes.values() for id in lane.running]
        try:
            await self._leases.give_back(self._ended, still_running)
        except PaasdError as error:
            _log.error("running jobs are left to the next start: %s", error.detail)

    async def _loop(self) -> None:
        failures = 0
        with self._database.watch(TOPIC) as self._wake:
            while True:
                self._wake.clear()
                try:
                    pause = await self._turn()
                except Exception as error:
                    known = isinstance(error, PaasdError)
                    _log.error("jobs wait: %s", error, exc_info=not known)
                    await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**failures))
                    failures = min(failures + 1, 10)
                    continue
                failures = 0
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def _turn(self) -> float:
        """Returns the seconds until there may be something to do, if nothing wakes us before."""
        if time.monotonic() >= self._renew_at:
            await self._keep_leases()
            self._renew_at = time.monotonic() + self._renew_every
        outcomes = list(self._ended)
        wanted = [w for lane in self._lanes.values() if (w := lane.wanted()).free or w.ahead > 0]
        claimed, next_at = await self._leases.turn(outcomes, wanted)
        del self._ended[: len(outcomes)]
        for job in claimed:
            self._lanes[job.queue].waiting.append(job)
        for lane in self._lanes.values():
            self._fill(lane)
        until_renewal = self._renew_at - time.monotonic()
        return max(0.0, until_renewal if next_at is None else min(until_renewal, next_at - self._clock()))

    async def _keep_leases(self) -> None:
        ids = [id for lane in self._lanes.values() for id in lane.ids()]
        lost = await self._leases.renew(ids) if ids else set()
        for lane in self._lanes.values():
            lane.waiting = deque(job for job in lane.waiting if job.id not in lost)
            for id in lost & lane.running.keys():
                lane.running[id].cancel()
        await self._leases.reclaim_expired()

    def _fill(self, lane: _Lane) -> None:
        while lane.waiting and len(lane.running) < lane.slots and not self._closing:
            job = lane.waiting.popleft()
            task = lane.running[job.id] = asyncio.create_task(self._work(lane, job), name=f"job {job.id} {job.type}")
            task.add_done_callback(partial(self._done, lane, job))

    async def _work(self, lane: _Lane, job: Job) -> Outcome:
        started = time.monotonic()
        try:
            return await self._outcome(job)
        finally:
            lane.pace += (time.monotonic() - started - lane.pace) / 8

    def _done(self, lane: _Lane, job: Job, task: asyncio.Task[Outcome]) -> None:
        del lane.running[job.id]
        if not task.cancelled():  # before it began; then the lease is given back
            self._ended.append(task.result())
        self._fill(lane)
        self._wake.set()

    async def _outcome(self, job: Job) -> Outcome:
        type = self._handlers[job.type].type
        try:
            async with asyncio.timeout(type.timeout) as limit:
                await failpoints.hit(f"job {type.name}")
                await self._handlers[job.type].run(job)
        except asyncio.CancelledError:
            if not self._closing:
                return Outcome(job.id, Ending.FAILED, "was cancelled")
            if type.repeatable:
                return Outcome(job.id, Ending.GIVEN_BACK)
            return Outcome(job.id, Ending.DEAD, f"{INTERRUPTED}: paasd stopped")
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                why = f"took longer than {type.timeout:g} s"
                return Outcome(job.id, Ending.FAILED if type.repeatable else Ending.DEAD, why)
            return Outcome(job.id, Ending.FAILED, _reason(job, error))
        return Outcome(job.id, Ending.DONE)


def _reason(job: Job, error: Exception) -> str:
    if known := from_exception(error):
        _log.warning("job %s (%s) failed: %s", job.id, job.type, known.detail)
        return known.detail
    _log.error("job %s (%s) failed", job.id, job.type, exc_info=error)
    return f"paasd failed ({type(error).__name__}); its log says why"
