"""Decides when a new instance may get traffic: all of its startup checks, at the same time, until they pass.

A silent one is asked again every hundredth of a second. Without a check that says `listening` it is a real request: a
bare connect-and-close makes some servers exit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from paasd.checks import Check
from paasd.drivers.base import Driver
from paasd.errors import HealthCheckFailed
from paasd.models import App, Instance, InstanceState
from paasd.run.failure_hooks import FailureHooks
from paasd.run.instances import InstanceRow
from paasd.run.probe import Probe

_POLL = 0.01
_LOOK = 0.25
"""Seconds between two looks at the container itself while its checks do not pass."""

Warn = Callable[[str], None]


class Health:
    """The startup checks of instances."""

    def __init__(self, driver: Driver, probe: Probe, hooks: FailureHooks) -> None:
        self._driver = driver
        self._probe = probe
        self._hooks = hooks

    async def wait(
        self, app: App, row: InstanceRow, checks: Sequence[Check], host: str, deadline: float, warn: Warn
    ) -> float:
        """Return the seconds it took until the instance was healthy. Raises HealthCheckFailed saying what was seen;
        what a check with `warn` saw is told instead. `deadline` is on the monotonic clock; `host` is sent as the Host
        header."""
        started = time.monotonic()
        failed: list[Check] = []

        async def passes(check: Check) -> None:
            asked = check.attempts + check.successes - 1
            patience = check.initial_delay + check.uptime + asked * (check.timeout + check.wait)
            try:
                await self._passes(app, row, check, host, min(deadline, started + patience) if check.warn else deadline)
            except HealthCheckFailed as error:
                failed.append(check)
                if not check.warn:
                    raise
                warn(f"{error.detail} (only a warning)")
                await self._follow_up(app, row, [check], error, warn)

        try:
            await self._unless_ended(app, row, _all(passes(check) for check in checks))
            await self._look(app, row)
        except HealthCheckFailed as error:
            # One that ended has failed all that was asked of it.
            await self._follow_up(app, row, [c for c in failed if not c.warn] or checks, error, warn)
            raise
        return time.monotonic() - started

    async def _follow_up(
        self, app: App, row: InstanceRow, checks: Sequence[Check], error: HealthCheckFailed, warn: Warn
    ) -> None:
        for told in await asyncio.gather(*(self._hooks(app, row, check, error.detail) for check in checks)):
            for text in told:
                warn(f"{_name(row)}: {text}")

    async def _passes(self, app: App, row: InstanceRow, check: Check, host: str, deadline: float) -> None:
        started = time.monotonic()
        await asyncio.sleep(min(check.initial_delay, max(0.0, deadline - started)))
        if check.asks:
            await self._until_answer(app, row, check, host, deadline)
        if started + check.uptime > deadline:
            raise HealthCheckFailed(
                f"{_name(row)} is up, but its uptime of {check.uptime:g} s is longer than a deployment may take",
                hint="Set a shorter one with checks:set, or raise run.start_timeout in paasd.toml.",
            )
        await asyncio.sleep(max(0.0, started + check.uptime - time.monotonic()))

    async def _unless_ended(self, app: App, row: InstanceRow, checking: Coroutine[Any, Any, None]) -> None:
        """Wait for `checking`, but not longer than the instance runs: a connection to one that ended hangs."""
        asking, watching = asyncio.create_task(checking), asyncio.create_task(self._watch(app, row))
        try:
            await asyncio.wait([asking, watching], return_when=asyncio.FIRST_COMPLETED)
            await (asking if asking.done() else watching)
        finally:
            for task in (asking, watching):
                task.cancel()
            await asyncio.gather(asking, watching, return_exceptions=True)

    async def _watch(self, app: App, row: InstanceRow) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            await self._look(app, row)

    async def _until_answer(self, app: App, row: InstanceRow, check: Check, host: str, deadline: float) -> None:
        good, wrong, seen = 0, 0, ""
        while (left := deadline - time.monotonic()) > 0:
            answer = await self._probe(row, check, host, within=left)
            good, seen = (good + 1, seen) if answer.ok else (0, answer.seen)
            if good >= check.successes:
                return
            if answer.silent:
                await asyncio.sleep(_POLL)
                continue
            wrong = 0 if answer.ok else wrong + 1
            if wrong >= check.attempts:
                raise _failed(app, row, check, f"{seen} ({wrong} times)")
            await asyncio.sleep(min(check.wait, max(0.0, deadline - time.monotonic())))
        if good:
            raise _failed(app, row, check, f"{check.what} passed {good} of {check.successes} times in a row in time")
        raise _failed(app, row, check, seen) if check.command else await self._silent(app, row, check, seen)

    async def _look(self, app: App, row: InstanceRow) -> None:
        """Raises HealthCheckFailed when the instance is not running any more, or was restarted by the engine."""
        instance = await self._driver.inspect(row.name)
        if instance is None:
            raise HealthCheckFailed(f"{_name(row)} disappeared while it was checked", hint="Deploy again.")
        if instance.state in (InstanceState.EXITED, InstanceState.CRASHING) or instance.restarts:
            ended = await self._ended(row, instance)
            raise HealthCheckFailed(f"{_name(row)} {why_ended(ended)}", hint=_EXIT_HINT.format(app.name))

    async def _ended(self, row: InstanceRow, instance: Instance) -> Instance:
        """An instance that was restarted, between two of its starts if it can be met there: only then is its exit
        status to be seen."""
        for _ in range(20):
            if instance.exit_code is not None:
                break
            await asyncio.sleep(_LOOK / 5)
            instance = await self._driver.inspect(row.name) or instance
        return instance

    async def _silent(self, app: App, row: InstanceRow, check: Check, seen: str) -> HealthCheckFailed:
        ports = sorted(await self._driver.listening_ports(row.name))
        if check.port in ports:
            return HealthCheckFailed(
                f"{_name(row)} listens on port {check.port}, but does not answer there: {seen}",
                hint="Bind to 0.0.0.0 instead of localhost, so that the edge can reach the app.",
            )
        if ports:
            listed = ", ".join(map(str, ports))
            return HealthCheckFailed(
                f"{_name(row)} is listening on {listed}, expected $PORT={check.port}",
                hint="Make the app listen on the port in the environment variable PORT, or tell paasd its port:"
                f" ports:set {app.name} {ports[0]}",
            )
        return HealthCheckFailed(
            f"{_name(row)} did not listen on $PORT={check.port} in time",
            hint="Make the web process listen on 0.0.0.0:$PORT, or scale it to 0 if the app has no web process.",
        )


_ANSWER_HINT = "Look at the instance's log above; set another check with: checks:set {} {} --path /health"
_EXIT_HINT = "The end of its log is above; try the command yourself with: run {} <command>"


def why_ended(instance: Instance) -> str:
    """`exited with status 1`, in words."""
    if instance.oom_killed:
        return "ran out of memory and was killed"
    if instance.exit_code is None or (instance.exit_code == 0 and instance.restarts):
        return f"exits soon after each start (restarted {instance.restarts} times)"
    return f"exited with status {instance.exit_code}"


def crashes(instance: Instance) -> str:
    """`web.1 crashed 3 times; it exited with status 7`, of one that the engine started again."""
    times = "once" if instance.restarts == 1 else f"{instance.restarts} times"
    told = instance.oom_killed or instance.exit_code is not None
    return f"{instance.process_type}.{instance.index} crashed {times}" + (f"; it {why_ended(instance)}" if told else "")


async def _all(checks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at the same time; the first failure ends the others."""
    tasks = [asyncio.create_task(check) for check in checks]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(app: App, row: InstanceRow, check: Check, seen: str) -> HealthCheckFailed:
    return HealthCheckFailed(f"{_titled(row, check)}: {seen}", hint=_ANSWER_HINT.format(app.name, row.process_type))


def _titled(row: InstanceRow, check: Check) -> str:
    return f"{_name(row)}: check {check.name}" if check.name else _name(row)


def _name(row: InstanceRow) -> str:
    return f"{row.process_type}.{row.number}"
