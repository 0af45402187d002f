"""Puts apps to sleep that nobody asked for during the time of their rule, and wakes those that somebody asks for. Owns
what was seen, in memory: after a start of the daemon the time begins anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from paasd import events
from paasd.apps import Apps
from paasd.database import Database
from paasd.errors import Conflict, EngineUnavailable, NotFound, PaasdError, from_exception
from paasd.models import App
from paasd.route.edge import Edge
from paasd.run.instances import InstanceRow, Instances
from paasd.run.runs import Runs
from paasd.sleep import Sleep
from paasd.sleep_rules import Quiet, SleepRules, pause, quiet
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_POLL = 10
"""Seconds that the edge keeps a question open."""
_LEAST_PAUSE = 0.25
"""Seconds between two looks even if events come one after the other."""
_RETRY = 1.0
_BACK_OFF, _LONGEST_BACK_OFF = 5.0, 300.0

IsUsed = Callable[[App], bool]


class Sleeper:
    def __init__(
        self,
        database: Database,
        rules: SleepRules,
        sleep: Sleep,
        apps: Apps,
        instances: Instances,
        runs: Runs,
        edge: Edge,
        switches: SwitchLocks,
        is_used: Sequence[IsUsed],
    ) -> None:
        """`is_used`: what else keeps an app awake, such as a push under way."""
        self._database = database
        self._rules = rules
        self._sleep = sleep
        self._apps = apps
        self._instances = instances
        self._runs = runs
        self._edge = edge
        self._switches = switches
        self._is_used = is_used
        self._quiet: dict[str, Quiet] = {}
        self._falling: dict[str, asyncio.Event] = {}
        """Apps on their way to sleep; set when somebody asks for one after all."""
        self._waking: dict[str, asyncio.Task[Any]] = {}
        self._failures: dict[str, int] = {}
        """How often in a row an app could not be woken."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listening = asyncio.Event()

    def start(self) -> None:
        self._begin(self._look_again())
        self._begin(self._listen())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def idle(self, app: App) -> float | None:
        """Seconds for which nobody has been seen to ask for it; None when that is not looked at."""
        seen = self._quiet.get(app.id)
        return time.monotonic() - seen.since if seen else None

    # falling asleep

    async def _look_again(self) -> None:
        """Now and then, and soon after something was set."""
        with self._database.watch(events.TOPIC) as told:
            while True:
                told.clear()
                seconds = await self._attempt("apps cannot be put to sleep right now", self.look())
                await asyncio.sleep(_LEAST_PAUSE)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds or pause({})):
                        await told.wait()

    async def look(self) -> float:
        """Once at everything that has a rule. Returns the seconds until the next look."""
        rules = await self._rules.all()
        apps = {app.id: app for app in await self._apps.all() if app.id in rules and not (app.stopped or app.asleep)}
        rows = await self._candidates(apps) if apps else {}
        self._quiet = {app_id: seen for app_id, seen in self._quiet.items() if app_id in rows}
        if rows:
            # In this order: what is under way at first and ends before the second answer is counted there.
            under_way = {name.rpartition(":")[0] for name in await self._edge.in_flight()}
            counters, at = await self._edge.counters(), time.monotonic()
            for app_id, addresses in rows.items():
                app = apps[app_id]
                requests = counters[app.name].requests if app.name in counters else 0
                seen = quiet(self._quiet.get(app_id), requests, bool(addresses & under_way), at)
                self._quiet[app_id] = seen
                if at - seen.since >= rules[app_id].after:
                    why = f"no request for {rules[app_id].after:g} s"
                    self._begin(self._put_to_sleep_in_time(app, why, requests))
        return pause(rules)

    async def now(self, app: App) -> None:
        """Put it to sleep without waiting for its time. Raises Conflict when it is being used."""
        if app.id not in await self._candidates({app.id: app}):
            raise Conflict(
                f"{app.name} cannot sleep now: nothing of it runs, or it is being deployed, entered, forwarded to,"
                " or runs a command",
                hint=f"Look at: ps:report {app.name}",
            )
        counters = await self._edge.counters()
        requests = counters[app.name].requests if app.name in counters else 0
        if not await self._put_to_sleep(app, "sleep:now", requests):
            raise Conflict(f"{app.name} stays awake: requests are under way", hint="Try again when they have ended.")

    async def _candidates(self, apps: Mapping[str, App]) -> dict[str, set[str]]:
        """Of these apps those that could sleep, with the addresses of their web instances."""
        running = {run.app_id for run in await self._runs.running()}
        found: dict[str, set[str]] = {}
        for row in await self._instances.all():
            if row.app_id in apps and _gets_requests(row):
                found.setdefault(row.app_id, set()).add(row.address)
        return {id_: found[id_] for id_ in found if not (id_ in running or self._is_taken(apps[id_]))}

    def _is_taken(self, app: App) -> bool:
        return app.id in self._falling or self._switches.is_held(app) or any(used(app) for used in self._is_used)

    async def _put_to_sleep_in_time(self, app: App, why: str, requests: int) -> None:
        try:
            await self._put_to_sleep(app, why, requests)
        except NotFound:
            return  # it was destroyed
        except PaasdError as error:
            _log.warning("%s cannot be put to sleep: %s", app.name, error.detail)

    async def _put_to_sleep(self, app: App, why: str, requests: int) -> bool:
        wanted = self._falling[app.id] = asyncio.Event()
        self._listening.set()
        slept = False
        self._failures.pop(app.id, 0)
        try:
            slept = await self._sleep.fall_asleep(app, why, requests, wanted)
            if slept:
                _log.info("%s sleeps: %s", app.name, why)
        finally:
            del self._falling[app.id]
            self._quiet.pop(app.id, None)
        if slept and wanted.is_set():
            self.wake_soon(app)
        return slept

    # waking

    async def _listen(self) -> None:
        """Ask the edge who is wanted, as long as there is somebody to wake."""
        trouble = ""
        while True:
            self._listening.clear()
            try:
                if self._falling or any(app.asleep for app in await self._apps.all()):
                    await self._heard(await self._edge.wanted(_POLL))
                else:
                    await self._listening.wait()
                trouble = ""
            except Exception as error:
                detail = error.detail if isinstance(error, PaasdError) else repr(error)
                if detail != trouble:  # told once, not every second
                    _log.warning("it is not known which apps are wanted: %s", detail)
                trouble = detail
                await asyncio.sleep(_RETRY)

    async def _heard(self, names: Collection[str]) -> None:
        for app in await self._apps.all() if names else ():
            if app.name not in names:
                continue
            if falling := self._falling.get(app.id):
                falling.set()
            elif app.asleep:
                self.wake_soon(app)

    def wake_soon(self, app: App, why: str = "a request came") -> None:
        """Without waiting for it. A failure is written down, and told to whoever asks for the app."""
        if app.id not in self._waking:
            task = self._waking[app.id] = self._begin(self._wake_wanted(app, why))
            task.add_done_callback(lambda _: self._waking.pop(app.id, None))

    async def _wake_wanted(self, app: App, why: str) -> None:
        with suppress(PaasdError):  # written down already
            await self.wake(app, why)

    async def wake(self, app: App, why: str) -> float | None:
        """Seconds it took; None when it did not sleep. After a failure of the app nobody is held for a while."""
        try:
            seconds = await self._sleep.wake(app, why)
        except NotFound:
            raise  # it was destroyed
        except EngineUnavailable as error:  # which is not the app's fault: who is held goes on waiting and asking
            _log.warning("%s cannot be woken yet: %s", app.name, error.detail)
            raise
        except Exception as error:
            known = from_exception(error)
            if known is None:
                _log.exception("waking %s failed", app.name)
            await self._failed(app, known or PaasdError("paasd failed; its log says why"))
            raise
        self._failures.pop(app.id, 0)
        if seconds is not None:
            _log.info("%s woke in %.3f s: %s", app.name, seconds, why)
        return seconds

    async def _failed(self, app: App, error: PaasdError) -> None:
        count = self._failures[app.id] = self._failures.get(app.id, 0) + 1
        seconds = min(_LONGEST_BACK_OFF, _BACK_OFF * 2 ** min(count - 1, 10))
        _log.warning("%s cannot be woken, trying again in %g s at the earliest: %s", app.name, seconds, error.detail)
        with suppress(PaasdError):
            await self._edge.not_woken(app.name, seconds)
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                "app.wake_failed",
                organization_id=app.organization_id,
                actor="paasd",
                app=app.name,
                reason=error.detail,
                again_in=seconds,
            )

    # tasks

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("putting an app to sleep or waking it failed", exc_info=error)

    async def _attempt(self, what: str, work: Coroutine[Any, Any, float]) -> float | None:
        try:
            return await work
        except PaasdError as error:
            _log.warning("%s: %s", what, error.detail)
        except Exception:
            _log.exception("%s", what)
        return None


def _gets_requests(row: InstanceRow) -> bool:
    return row.state == "live" and row.process_type == "web" and not row.asleep
