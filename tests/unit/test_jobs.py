"""Durable jobs, on a real SQLite. A daemon that dies is one whose tasks are dropped without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from paasd.config import JobsConfig
from paasd.database import Row
from paasd.errors import Conflict, Forbidden, NotFound, PaasdError
from paasd.events import Events
from paasd.identity.policy import Action, authorize
from paasd.jobs.job import Job, JobStatus, JobType, Queue
from paasd.jobs.leases import Ending, Leases, Outcome, Wanted
from paasd.jobs.table import Jobs, Viewer
from paasd.jobs.workers import Handler, Workers
from paasd.models import Actor
from tests.unit.conftest import Store, until

NOTE = JobType("test.note", Queue.NOTIFICATION)
ONCE = JobType("test.once", Queue.NOTIFICATION, repeatable=False)
SWEEP = JobType("test.sweep", Queue.CLEANUP)
_FAST = JobsConfig(back_off=0.01, back_off_limit=0.02)


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class Office:
    """Jobs, and workers that are ended after the test."""

    store: Store
    clock: Callable[[], float] | None = None
    workers: list[Workers] = field(default_factory=list)

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.store.database, self.clock) if self.clock else Jobs(self.store.database)

    @property
    def viewer(self) -> Viewer:
        return Viewer(self.store.admin.organization_id, True)

    async def add(self, type: JobType, *numbers: int, **options: object) -> list[int]:
        async with self.store.database.transaction() as tx:
            payloads: list[dict[str, int]] = [{"n": n} for n in numbers] or [{}]
            return [await self.jobs.add(tx, type, payload, **options) for payload in payloads]  # type: ignore[arg-type]

    async def start(self, *handlers: Handler, config: JobsConfig = _FAST) -> Workers:
        workers = Workers(self.store.database, self.jobs, config, handlers)
        self.workers.append(workers)
        await workers.start()
        return workers

    async def kill(self, workers: Workers) -> None:
        """The tasks end, the rows stay as they are."""
        self.workers.remove(workers)
        tasks = [task for lane in workers._lanes.values() for task in lane.running.values()]
        assert workers._loop_task is not None
        workers._closing = True
        for task in (workers._loop_task, *tasks):
            task.cancel()
        await asyncio.gather(workers._loop_task, *tasks, return_exceptions=True)

    def leases(self, *types: JobType) -> Leases:
        assert self.clock is not None
        return Leases(self.store.database, self.jobs, JobsConfig(lease=30, back_off=10), types, self.clock)

    async def row(self, id: int) -> Row:
        row = await self.store.database.fetch_one("SELECT * FROM jobs WHERE id = ?", id)
        assert row is not None
        return row

    async def status(self, id: int) -> str:
        return str((await self.row(id))["status"])

    async def until(self, id: int, status: str) -> Row:
        async def reached() -> bool:
            return await self.status(id) == status

        await until(reached)
        return await self.row(id)

    async def dead_events(self) -> list[int]:
        events = await Events(self.store.database).list(self.store.admin.organization_id)
        return [event.data["job"] for event in events if event.type == "job.dead"]


@pytest.fixture
async def office(store: Store) -> AsyncIterator[Office]:
    office = Office(store)
    yield office
    for workers in office.workers:
        await workers.stop()


@pytest.fixture
def clock(office: Office) -> Clock:
    office.clock = clock = Clock()
    return clock


class Recorder:
    """A handler that notes what it got, and waits at a gate if it has one."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.seen: list[int] = []
        self.now = self.most = 0
        self.begun = asyncio.Event()
        self._gate = gate

    async def __call__(self, job: Job) -> None:
        self.seen.append(job.payload.get("n", 0))
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.set()
        try:
            if self._gate is not None:
                await self._gate.wait()
        finally:
            self.now -= 1

    async def wait_begun(self) -> None:
        async with asyncio.timeout(5):
            await self.begun.wait()

    async def wait_seen(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.seen) >= count

        await until(enough)


def free(queue: Queue = Queue.NOTIFICATION, free: int = 10, ahead: int = 0) -> list[Wanted]:
    return [Wanted(queue, free, ahead)]


async def test_a_job_belongs_to_the_transaction_that_adds_it(office: Office) -> None:
    recorder = Recorder()
    await office.start(Handler(NOTE, recorder))
    with pytest.raises(RuntimeError):
        async with office.store.database.transaction() as tx:
            await office.jobs.add(tx, NOTE, {"n": 1})
            raise RuntimeError
    [id] = await office.add(NOTE, 2)
    await office.until(id, "done")
    assert recorder.seen == [2]


async def test_workers_wake_at_once(office: Office) -> None:
    recorder = Recorder()
    await office.start(Handler(NOTE, recorder), config=JobsConfig(lease=3600))
    await asyncio.sleep(0.1)
    await office.add(NOTE, 1)
    await recorder.wait_begun()


async def test_a_job_waits_for_its_time(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    [later] = await office.add(NOTE, after=60)
    claimed, next_at = await leases.turn([], free())
    assert (claimed, next_at) == ([], 1060.0)
    clock.time += 61
    claimed, next_at = await leases.turn([], free())
    assert ([job.id for job in claimed], next_at) == ([later], None)


async def test_workers_sleep_until_a_jobs_time(office: Office) -> None:
    recorder = Recorder()
    await office.start(Handler(NOTE, recorder), config=JobsConfig(lease=3600))
    [id] = await office.add(NOTE, after=0.2)
    await office.until(id, "done")


async def test_higher_priority_first_then_in_order(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    await office.add(NOTE, 1, 2)
    await office.add(NOTE, 3, priority=5)
    claimed = [job for _ in range(3) for job in (await leases.turn([], free(free=1)))[0]]
    assert [job.payload["n"] for job in claimed] == [3, 1, 2]


async def test_jobs_without_a_handler_stay_queued(office: Office, clock: Clock) -> None:
    leases = office.leases(SWEEP)
    await office.add(NOTE, 1)
    assert (await leases.turn([], [*free(), *free(Queue.CLEANUP)]))[0] == []


async def test_a_queue_runs_no_more_than_its_slots(office: Office) -> None:
    gate = asyncio.Event()
    recorder, sweeper = Recorder(gate), Recorder()
    await office.start(Handler(NOTE, recorder), Handler(SWEEP, sweeper), config=JobsConfig(notification=3))
    ids = await office.add(NOTE, *range(20))
    await office.until((await office.add(SWEEP))[0], "done")  # another queue is not held up
    assert (recorder.now, len(recorder.seen)) == (3, 3)
    gate.set()
    for id in ids:
        await office.until(id, "done")
    assert recorder.most == 3


async def test_slots_hold_when_jobs_are_claimed_ahead(office: Office) -> None:
    gate = asyncio.Event()
    gate.set()
    recorder = Recorder(gate)
    await office.start(Handler(NOTE, recorder), config=JobsConfig(notification=2))
    quick = await office.add(NOTE, *range(200))  # the pace that later ones are claimed at
    await office.until(quick[-1], "done")
    gate.clear()
    ids = await office.add(NOTE, *range(20))

    async def claimed_ahead() -> bool:
        rows = await office.store.database.fetch("SELECT * FROM jobs WHERE status = 'running'")
        return len(rows) > 2

    await until(claimed_ahead)
    assert (recorder.now, recorder.most) == (2, 2)
    gate.set()
    await office.until(ids[-1], "done")


async def test_many_jobs_share_transactions(office: Office) -> None:
    recorder = Recorder()
    ids = await office.add(NOTE, *range(500))
    commits = 0

    real = office.store.database.transaction

    @contextlib.asynccontextmanager
    async def counted() -> AsyncIterator[object]:
        nonlocal commits
        async with real() as tx:
            commits += 1
            yield tx

    office.store.database.transaction = counted  # type: ignore[method-assign, assignment]
    await office.start(Handler(NOTE, recorder))
    await office.until(ids[-1], "done")
    assert recorder.seen == list(range(500))
    assert commits < 250


async def test_a_queued_key_is_added_once(office: Office, clock: Clock) -> None:
    [first] = await office.add(NOTE, 1, key="a", after=10)
    assert await office.add(NOTE, 2, key="a") == [first]
    row = await office.row(first)
    assert (row["payload"], row["run_at"]) == ('{"n": 1}', 1010.0)
    assert await office.add(NOTE, 3, key="a", after=99, moves=True) == [first]
    row = await office.row(first)
    assert (row["payload"], row["run_at"]) == ('{"n": 3}', 1099.0)
    organization = office.store.admin.organization_id
    others = [*await office.add(NOTE, key="b"), *await office.add(SWEEP, key="a")]
    assert len({first, *others, *await office.add(NOTE, key="a", organization_id=organization)}) == 4


async def test_while_a_key_runs_one_more_waits_for_it(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    [first] = await office.add(NOTE, key="a")
    await leases.turn([], free())
    [second] = await office.add(NOTE, key="a")
    assert second != first
    assert await office.add(NOTE, key="a") == [second]
    assert (await leases.turn([], free()))[0] == []
    claimed, _ = await leases.turn([Outcome(first, Ending.DONE)], free())
    assert [job.id for job in claimed] == [second]


async def test_a_failed_job_whose_key_is_queued_again_leaves_the_work_to_that_one(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    [first] = await office.add(NOTE, key="a", every=60)
    await leases.turn([], free())
    [second] = await office.add(NOTE, key="a")
    claimed, _ = await leases.turn([Outcome(first, Ending.FAILED, "no")], free())
    assert [job.id for job in claimed] == [second]
    assert (await office.row(second))["every"] == 60
    row = await office.row(first)
    assert (row["status"], row["error"], row["every"]) == ("done", "no", None)


async def test_back_off_doubles_and_the_last_attempt_is_the_end(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    [id] = await office.add(NOTE)
    for attempt in range(1, NOTE.max_attempts + 1):
        [job], _ = await leases.turn([], free())
        assert job.attempts == attempt
        await leases.turn([Outcome(id, Ending.FAILED, f"no {attempt}")], [])
        row = await office.row(id)
        if attempt < NOTE.max_attempts:
            assert 5 * 2 ** (attempt - 1) <= row["run_at"] - clock.time <= 10 * 2 ** (attempt - 1)
            assert (await leases.turn([], free()))[0] == []
            clock.time = row["run_at"]
    assert (row["status"], row["error"], row["attempts"]) == ("dead", "no 5", 5)
    assert await office.dead_events() == [id]


async def test_what_a_handler_raises_is_kept(office: Office) -> None:
    async def refuse(job: Job) -> None:
        raise PaasdError("the server said no")

    async def defect(job: Job) -> None:
        raise ZeroDivisionError("with a secret in it")

    await office.start(Handler(NOTE, refuse), Handler(SWEEP, defect))
    [refused], [broken] = await office.add(NOTE), await office.add(SWEEP)
    assert (await office.until(refused, "dead"))["error"] == "the server said no"
    row = await office.until(broken, "dead")
    assert "ZeroDivisionError" in row["error"] and "secret" not in row["error"]


async def test_a_time_limit_ends_an_attempt(office: Office) -> None:
    forever = asyncio.Event()
    slow = JobType("test.slow", Queue.NOTIFICATION, timeout=0.05, max_attempts=2)
    slow_once = JobType("test.slow-once", Queue.CLEANUP, timeout=0.05, repeatable=False)

    async def wait(job: Job) -> None:
        await forever.wait()

    await office.start(Handler(slow, wait), Handler(slow_once, wait))
    [id], [once] = await office.add(slow), await office.add(slow_once)
    row = await office.until(id, "dead")
    assert (row["attempts"], row["error"]) == (2, "took longer than 0.05 s")
    assert (await office.until(once, "dead"))["attempts"] == 1


async def test_after_a_crash_the_next_daemon_goes_on_at_once(office: Office) -> None:
    gate = asyncio.Event()
    recorder, once = Recorder(gate), Recorder(gate)
    first = await office.start(Handler(NOTE, recorder), Handler(ONCE, once), config=JobsConfig(lease=3600))
    ids = await office.add(NOTE, 1, 2)
    [never_twice] = await office.add(ONCE, 3)
    await recorder.wait_begun()
    await once.wait_begun()
    await office.kill(first)
    assert await office.status(never_twice) == "running"
    gate.set()
    await office.start(Handler(NOTE, recorder), Handler(ONCE, once), config=JobsConfig(lease=3600))
    for id in ids:
        assert (await office.until(id, "done"))["attempts"] == 2
    row = await office.until(never_twice, "dead")
    assert row["error"] == "interrupted"
    assert (sorted(recorder.seen), once.seen) == ([1, 1, 2, 2], [3])
    assert await office.dead_events() == [never_twice]


async def test_a_job_that_kills_its_daemon_each_time_is_given_up(office: Office, clock: Clock) -> None:
    [id] = await office.add(NOTE)
    for _ in range(NOTE.max_attempts):
        leases = office.leases(NOTE)
        await leases.take_over()
        assert len((await leases.turn([], free()))[0]) == 1
    await office.leases(NOTE).take_over()
    assert await office.status(id) == "dead"


async def test_running_jobs_of_unknown_types_are_left_to_a_daemon_that_knows_them(office: Office, clock: Clock) -> None:
    [id] = await office.add(SWEEP, key="a", every=60)
    await office.leases(SWEEP).turn([], free(Queue.CLEANUP))
    assert await office.leases(NOTE).take_over() == 0
    assert await office.leases(SWEEP).take_over() == 1
    assert (await office.row(id))["every"] == 60


async def test_what_runs_at_the_stop_is_queued_again_and_has_lost_no_attempt(office: Office) -> None:
    recorder, once = Recorder(asyncio.Event()), Recorder(asyncio.Event())
    workers = await office.start(
        Handler(NOTE, recorder), Handler(ONCE, once), config=JobsConfig(notification=3, lease=3600)
    )
    [never_twice] = await office.add(ONCE, 0)
    ids = await office.add(NOTE, *range(1, 6))
    await recorder.wait_begun()
    await once.wait_begun()
    async with asyncio.timeout(5):
        await workers.stop()
    for id in ids:
        row = await office.row(id)
        assert (row["status"], row["attempts"], row["lease_owner"]) == ("queued", 0, None)
    row = await office.row(never_twice)
    assert (row["status"], row["error"]) == ("dead", "interrupted: paasd stopped")
    office.workers.clear()


async def test_claimed_but_not_begun_is_not_an_interruption(office: Office, clock: Clock) -> None:
    leases = office.leases(ONCE)
    [id] = await office.add(ONCE)
    await leases.turn([], free())
    await leases.give_back([], [])
    row = await office.row(id)
    assert (row["status"], row["attempts"]) == ("queued", 0)


async def test_only_what_may_run_twice_is_claimed_ahead(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE, ONCE)
    await office.add(ONCE, 1, 2)
    await office.add(NOTE, 3, 4, 5)
    claimed, _ = await leases.turn([], free(free=1, ahead=2))
    assert [job.payload["n"] for job in claimed] == [1, 3, 4]


async def test_a_lease_runs_out_unless_it_is_renewed(office: Office, clock: Clock) -> None:
    mine, other = office.leases(NOTE), office.leases(NOTE)
    [id] = await office.add(NOTE)
    await mine.turn([], free())
    clock.time += 20
    assert await mine.renew([id]) == set()
    clock.time += 20
    assert await other.reclaim_expired() == 0
    clock.time += 20
    assert await other.reclaim_expired() == 1
    [job], _ = await other.turn([], free())
    assert job.id == id
    # Whoever lost the lease is not listened to any more.
    assert await mine.renew([id]) == {id}
    await mine.turn([Outcome(id, Ending.DONE)], [])
    assert await office.status(id) == "running"
    await other.turn([Outcome(id, Ending.DONE)], [])
    assert await office.status(id) == "done"


async def test_leases_are_renewed_while_a_handler_runs(office: Office) -> None:
    gate = asyncio.Event()
    recorder = Recorder(gate)
    await office.start(Handler(NOTE, recorder), config=JobsConfig(lease=0.3))
    [id] = await office.add(NOTE)
    await recorder.wait_begun()
    first = (await office.row(id))["lease_until"]

    async def renewed() -> bool:
        return bool((await office.row(id))["lease_until"] > first + 0.3)

    await until(renewed)
    gate.set()
    await office.until(id, "done")
    assert len(recorder.seen) == 1


async def test_a_job_goes_with_its_app_and_what_runs_is_ended(office: Office) -> None:
    app = await office.store.apps.create(office.store.admin, "blog")
    recorder = Recorder(asyncio.Event())
    await office.start(Handler(NOTE, recorder), config=JobsConfig(lease=0.2, notification=1))
    await office.add(NOTE, 1, 2, app_id=app.id, organization_id=app.organization_id)
    await recorder.wait_begun()
    await office.store.apps.destroy(office.store.admin, app)

    async def ended() -> bool:
        return recorder.now == 0

    await until(ended)
    assert await office.store.database.fetch("SELECT * FROM jobs") == []
    assert recorder.seen == [1]


async def test_a_recurring_job_comes_again_and_again_over_restarts(office: Office) -> None:
    recorder = Recorder()
    handler = Handler(SWEEP, recorder, every=0.05)
    first = await office.start(handler)
    await recorder.wait_seen(3)
    await office.kill(first)
    before = len(recorder.seen)
    await office.start(handler)
    await recorder.wait_seen(before + 3)
    assert len(await office.jobs.list(office.viewer)) == 1


async def test_a_restart_does_not_run_a_recurring_job_before_its_time(office: Office) -> None:
    recorder = Recorder()
    handler = Handler(SWEEP, recorder, every=3600)
    first = await office.start(handler)

    async def ran() -> bool:
        jobs = await office.jobs.list(office.viewer)
        return bool(jobs) and jobs[0].finished_at is not None

    await until(ran)
    await first.stop()
    office.workers.clear()
    await office.start(handler)
    await office.until((await office.add(SWEEP, key="other"))[0], "done")
    assert len(recorder.seen) == 2


async def test_a_recurring_job_that_is_given_up_comes_again_all_the_same(office: Office, clock: Clock) -> None:
    leases = office.leases(SWEEP)
    [id] = await office.add(SWEEP, key="a", every=60)
    await leases.turn([], free(Queue.CLEANUP))
    await leases.turn([Outcome(id, Ending.DEAD, "no")], [])
    queued, dead = await office.jobs.list(office.viewer)
    assert (dead.id, dead.status, dead.every) == (id, JobStatus.DEAD, None)
    assert (queued.status, queued.every, queued.run_at, queued.attempts) == (JobStatus.QUEUED, 60, 1060.0, 0)
    with pytest.raises(Conflict, match=f"job {queued.id} does the same"):
        await office.jobs.retry(office.store.admin, office.viewer, id)


async def test_a_cancelled_job_does_not_come_again(office: Office, clock: Clock) -> None:
    leases = office.leases(SWEEP)
    for running in (False, True):
        [id] = await office.add(SWEEP, key="a", every=60)
        if running:
            await leases.turn([], free(Queue.CLEANUP))
        async with office.store.database.transaction() as tx:
            await office.jobs.cancel(tx, SWEEP, "a")
        await leases.turn([Outcome(id, Ending.DONE)], [])
        clock.time += 100
        assert (await leases.turn([], free(Queue.CLEANUP)))[0] == []


async def test_a_dead_job_can_be_tried_again_or_discarded(office: Office, clock: Clock) -> None:
    leases, admin = office.leases(NOTE), office.store.admin
    ids = await office.add(NOTE, 1, 2)
    await leases.turn([], free())
    for change in (office.jobs.retry, office.jobs.discard):
        with pytest.raises(Conflict, match="is running"):
            await change(admin, office.viewer, ids[0])
    await leases.turn([Outcome(id, Ending.DEAD, "no") for id in ids], [])
    job = await office.jobs.retry(admin, office.viewer, ids[0])
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    await office.jobs.discard(admin, office.viewer, ids[1])
    with pytest.raises(NotFound):
        await office.jobs.get(office.viewer, ids[1])
    [again], _ = await leases.turn([], free())
    assert again.id == ids[0]
    types = [event.type for event in await Events(office.store.database).list(admin.organization_id)]
    assert types[-2:] == ["job.retried", "job.discarded"]


async def test_a_recurring_job_is_not_discarded_but_can_run_now(office: Office, clock: Clock) -> None:
    leases = office.leases(SWEEP)
    [id] = await office.add(SWEEP, key="a", every=60, after=60)
    with pytest.raises(Conflict, match="comes again"):
        await office.jobs.discard(office.store.admin, office.viewer, id)
    await office.jobs.retry(office.store.admin, office.viewer, id)
    assert [job.id for job in (await leases.turn([], free(Queue.CLEANUP)))[0]] == [id]


async def test_jobs_are_seen_by_their_organization_and_the_boxs_own_by_its_administrators(office: Office) -> None:
    admin, stranger = office.store.admin, Actor("another-organization", "u", "stranger", "owner")
    [own] = await office.add(NOTE, organization_id=admin.organization_id)
    [box] = await office.add(SWEEP)
    foreign = Viewer(stranger.organization_id, False)
    assert [job.id for job in await office.jobs.list(office.viewer)] == [box, own]
    assert [job.id for job in await office.jobs.list(Viewer(admin.organization_id, False))] == [own]
    assert await office.jobs.list(foreign) == []
    for id in (own, box):
        with pytest.raises(NotFound):
            await office.jobs.get(foreign, id)
        for change in (office.jobs.retry, office.jobs.discard):
            with pytest.raises(NotFound):
                await change(stranger, foreign, id)


def test_jobs_are_for_administrators() -> None:
    for action in (Action.JOB_READ, Action.JOB_CHANGE):
        for role in ("developer", "viewer"):
            with pytest.raises(Forbidden, match=role):
                authorize(Actor("org", "u", "somebody", role), action, "org")


async def test_lists_are_filtered_and_paged(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    notes, [sweep] = await office.add(NOTE, 1, 2, 3), await office.add(SWEEP)
    await leases.turn([], free(free=1))

    async def ids(**options: object) -> list[int]:
        return [job.id for job in await office.jobs.list(office.viewer, **options)]  # type: ignore[arg-type]

    assert await ids(queue=Queue.CLEANUP) == [sweep]
    assert await ids(status=JobStatus.RUNNING) == notes[:1]
    assert await ids(queue=Queue.NOTIFICATION, status=JobStatus.QUEUED) == [notes[2], notes[1]]
    assert await ids(limit=2) == [sweep, notes[2]]
    assert await ids(limit=2, before=notes[2]) == [notes[1], notes[0]]


async def test_ended_jobs_are_forgotten_by_number(office: Office, clock: Clock) -> None:
    leases = office.leases(NOTE)
    ids = await office.add(NOTE, *range(20))
    await leases.turn([], free(free=16))
    endings = [Ending.DONE] * 10 + [Ending.DEAD] * 5
    await leases.turn([Outcome(id, ending) for id, ending in zip(ids, endings, strict=False)], [])
    assert await office.jobs.prune(3) == 9
    left = [job.id for job in await office.jobs.list(office.viewer)]
    assert left[::-1] == [*ids[7:10], *ids[12:20]]


async def test_workers_go_on_after_the_database_failed(office: Office) -> None:
    recorder = Recorder()
    workers = await office.start(Handler(NOTE, recorder))
    turn, failed = workers._leases.turn, asyncio.Event()

    async def fail(*words: object) -> None:
        workers._leases.turn = turn  # type: ignore[method-assign]
        failed.set()
        raise PaasdError("the disk is full")

    workers._leases.turn = fail  # type: ignore[method-assign, assignment]
    [id] = await office.add(NOTE, 1)
    await office.until(id, "done")
    assert failed.is_set()
