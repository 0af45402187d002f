"""One-off commands in the live image with the live config: attached to their client (`run`), or on their own
(`run:detached`, the schedule). Who wants one gets a row first, then a container."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from paasd import events
from paasd.config import Config
from paasd.database import Database, now
from paasd.drivers.base import Driver, OneOff
from paasd.errors import Cancelled, Conflict, PaasdError
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.workers import Handler
from paasd.models import Actor, App, Instance, InstanceSpec, InstanceState, LogLine, ProcessType, Release, Secret
from paasd.release import Releases
from paasd.resources import Resources
from paasd.route.domains import Domains
from paasd.run.networks import Networks
from paasd.run.runs import Ending, Kind, NewRun, Run, Runs, RunStatus
from paasd.run.tasks import one_off_spec
from paasd.storage import Storage, mounts_for

_log = logging.getLogger(__name__)

FORGET = JobType("run.forget", Queue.CLEANUP)
_FORGET_EVERY = 600.0
_TAIL = 1000
_STOP_TIMEOUT = 10
_RETRY = 2.0
_DIED = "paasd stopped while it was under way"


@dataclass(frozen=True)
class Command:
    """`timeout` in seconds; None: the box's."""

    words: Sequence[str]
    env: Mapping[str, Secret] = field(default_factory=dict)
    timeout: float | None = None


@dataclass
class Attached:
    """A command with its client. Who talks to it sets `exit_code`."""

    one_off: OneOff
    exit_code: int | None = None


class OneOffs:
    def __init__(
        self,
        database: Database,
        config: Config,
        releases: Releases,
        domains: Domains,
        driver: Driver,
        networks: Networks,
        storage: Storage,
        resources: Resources,
        runs: Runs,
    ) -> None:
        self._database = database
        self._config = config
        self._releases = releases
        self._domains = domains
        self._driver = driver
        self._networks = networks
        self._storage = storage
        self._resources = resources
        self._runs = runs
        self._watches: set[asyncio.Task[None]] = set()
        self._verdicts: dict[str, Ending] = {}
        """Why runs are being ended, by id."""

    def handlers(self) -> Sequence[Handler]:
        return [Handler(FORGET, self._forget, _FORGET_EVERY)]

    async def resume(self) -> None:
        """At start: what was attached to the last daemon is over, what was not is watched again."""
        for run in await self._runs.running():
            if run.kind is Kind.ATTACHED:
                await self._runs.finish(run, Ending(RunStatus.LOST, reason=_DIED))
            else:
                self._watch(run)
        self._background(self._sweep(), "sweep of one-off commands")

    async def close(self) -> None:
        """Detached commands go on."""
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    @asynccontextmanager
    async def attached(
        self, actor: Actor, app: App, command: Command, terminal: tuple[int, int] | None
    ) -> AsyncIterator[Attached]:
        """Inside the block the command runs. A first word that names a process type of the Procfile runs its command,
        with further words appended. Raises Conflict before the first deployment, Cancelled when its time is over."""
        release = await self.live(app)
        run = await self._add(actor, app, release, Kind.ATTACHED, command)
        ending = Ending(RunStatus.LOST, reason=_DIED)
        try:
            async with asyncio.timeout(run.ends_by - now()) as limit:
                spec = await self._spec(app, release, run, command)
                async with await self._driver.one_off(spec, tty=terminal, stdin=True) as one_off:
                    attached = Attached(one_off)
                    ending = Ending(RunStatus.STOPPED, reason="its client left")
                    yield attached
                    ended = _ended(attached.exit_code)
                    ending = replace(self._verdicts.get(run.id, ended), exit_code=attached.exit_code)
        except TimeoutError:
            if not limit.expired():
                raise
            ending = Ending(RunStatus.TIMED_OUT, reason=_too_long(run))
            raise Cancelled(ending.reason, hint="Give it more time with: run --timeout 48h") from None
        except PaasdError as error:
            ending = Ending(RunStatus.FAILED, reason=error.detail)
            raise
        finally:
            self._verdicts.pop(run.id, None)
            await asyncio.shield(self._runs.finish(run, ending))

    async def detach(self, actor: Actor, app: App, command: Command) -> Run:
        """Start a command that needs nobody; it goes on when the daemon does not. Raises Conflict before the first
        deployment."""
        release = await self.live(app)
        run = await self._add(actor, app, release, Kind.DETACHED, command)
        await self.begin(app, release, run, command)
        return run

    async def begin(self, app: App, release: Release, run: Run, command: Command) -> None:
        """Start a run that is written down. Whatever keeps it from starting is its end, and raised."""
        await asyncio.shield(self._begin(app, release, run, command))

    async def stop(self, app: App, number: int, ending: Ending) -> Run:
        """SIGTERM, then SIGKILL. Raises Conflict for a run that has ended."""
        run = await self._runs.get(app, number)
        if run.status is not RunStatus.RUNNING:
            raise Conflict(f"run {number} of {app.name} has ended ({run.status})", hint=f"See: run:list {app.name}")
        self._verdicts[run.id] = ending
        try:
            await self._driver.halt(run.container, _STOP_TIMEOUT)
        except PaasdError:
            self._verdicts.pop(run.id, None)
            raise
        return run

    def check_readable(self, run: Run) -> None:
        """Raises Conflict for a run whose output nobody keeps."""
        if run.kind is Kind.ATTACHED:
            raise Conflict(f"run {run.number} wrote to its own client", hint="Use run:detached to keep the output.")

    async def logs(self, run: Run, tail: int, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """What a detached run wrote; of one that has ended, the end."""
        if run.status is not RunStatus.RUNNING:
            for line in run.output[-tail:] if tail else ():
                yield line
            return
        async for line in self._driver.logs(run.container, tail=tail, follow=follow):
            yield line

    async def live(self, app: App) -> Release:
        """The live release. Raises Conflict when there is none."""
        release = await self._releases.current(app)
        if release is None:
            raise Conflict(f"{app.name} has not been deployed yet", hint="Push it first: git push paasd main")
        return release

    async def _add(self, actor: Actor, app: App, release: Release, kind: Kind, command: Command) -> Run:
        seconds = command.timeout or self._config.run.one_off_timeout
        new = NewRun(kind, "run", shlex.join(command.words), actor.name, seconds, release.number)
        async with self._database.transaction() as tx:
            run = await self._runs.add(tx, app, new)
            await events.record(
                tx,
                "app.run",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                run=run.number,
                kind=kind,
                command=command.words[0],
            )
        return run

    async def _begin(self, app: App, release: Release, run: Run, command: Command) -> None:
        try:
            await self._driver.launch(await self._spec(app, release, run, command))
        except PaasdError as error:
            await self._runs.finish(run, Ending(RunStatus.FAILED, reason=error.detail))
            raise
        self._watch(run)

    async def _spec(self, app: App, release: Release, run: Run, command: Command) -> InstanceSpec:
        project = await self._networks.ensure(app)
        url = await self._domains.url(app)
        name = "cron" if run.kind is Kind.CRON else "run"
        limits = (await self._resources.of(app)).limits(name)
        spec = one_off_spec(app, project, release, ProcessType(name, None), self._config, url, limits, run.number)
        words, mounts = _words(release, command.words), mounts_for(await self._storage.ready(app, release), name)
        return replace(spec, name=run.container, command=words, env={**spec.env, **command.env}, mounts=mounts)

    def _watch(self, run: Run) -> None:
        self._background(self._see_to_its_end(run), f"run {run.container}")

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _see_to_its_end(self, run: Run) -> None:
        """Whatever fails is tried again, since nobody else looks after it."""
        trouble = ""
        while True:
            try:
                return await self._follow(run)
            except PaasdError as error:
                if error.detail != trouble:
                    _log.warning("run %s: %s", run.container, error.detail)
                trouble = error.detail
            except Exception:
                _log.exception("run %s", run.container)
            await asyncio.sleep(_RETRY)

    async def _follow(self, run: Run) -> None:
        try:
            async with asyncio.timeout(run.ends_by - now()):
                instance = await self._driver.wait(run.container)
        except TimeoutError:
            self._verdicts.setdefault(run.id, Ending(RunStatus.TIMED_OUT, reason=_too_long(run)))
            await self._driver.halt(run.container, _STOP_TIMEOUT)
            instance = await self._driver.wait(run.container)
        output = [line async for line in self._driver.logs(run.container, tail=_TAIL)]
        ending = replace(self._ending(run, instance), output=output, at=instance.ended_at if instance else None)
        await self._runs.finish(run, ending)
        self._verdicts.pop(run.id, None)
        await self._driver.stop(run.container, 1)

    def _ending(self, run: Run, instance: Instance | None) -> Ending:
        if instance is None:
            return self._verdicts.get(run.id) or Ending(RunStatus.LOST, reason="its container is gone")
        if instance.state is InstanceState.STARTING:
            return Ending(RunStatus.LOST, reason="paasd stopped before it began")
        if verdict := self._verdicts.get(run.id):
            return replace(verdict, exit_code=instance.exit_code)
        return _ended(instance.exit_code, out_of_memory=instance.oom_killed)

    async def _forget(self, job: Job) -> None:
        await self._runs.prune(self._config.keep.runs)

    async def _sweep(self) -> None:
        """Remove what a killed daemon left: containers of runs that are not under way. A row is there before its
        container, so the containers are looked for first."""
        while True:
            try:
                present = await self._driver.one_offs(detached=True)
                wanted = {run.container for run in await self._runs.running()}
                for name in set(present) - wanted:
                    await self._driver.stop(name, _STOP_TIMEOUT)
                return
            except PaasdError:
                await asyncio.sleep(_RETRY)


def _words(release: Release, words: Sequence[str]) -> tuple[str, ...]:
    entry = next((p.command for p in release.process_types if p.name == words[0] and p.command), None)
    # "$@" hands the further words over as they are, whatever they hold.
    return ("/bin/sh", "-c", f'{entry} "$@"', words[0], *words[1:]) if entry else tuple(words)


def _ended(exit_code: int | None, *, out_of_memory: bool = False) -> Ending:
    reason = "out of memory" if out_of_memory else ""
    return Ending(RunStatus.SUCCEEDED if exit_code == 0 else RunStatus.FAILED, exit_code, reason)


def _too_long(run: Run) -> str:
    return f"it took longer than {run.ends_by - run.created_at:g} s"
