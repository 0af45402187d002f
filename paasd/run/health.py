"""Decides when an instance may get traffic: a real GET, repeated every hundredth of a second until it answers.

A bare connect-and-close is never used: some servers treat it as an error and exit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from paasd.drivers.base import Driver
from paasd.errors import HealthCheckFailed, InvalidInput
from paasd.models import App, Instance, InstanceState, Release
from paasd.names import shown
from paasd.run.instances import InstanceRow

_POLL = 0.01
_LOOK = 0.25
"""Seconds between two looks at the container itself while its port is silent."""
_WORKER_UPTIME = 3.0
_MAX_BODY = 64 * 1024


@dataclass(frozen=True)
class Check:
    """Startup check of one process type. `path` None: any HTTP answer will do. Times in seconds."""

    path: str | None = None
    content: str | None = None
    port: int | None = None
    """None: nothing listens, the instance only has to stay up."""
    attempts: int = 3
    """Wrong answers (not silence) before it counts as failed."""
    wait: float = 5.0
    timeout: float = 5.0
    initial_delay: float = 0.0
    uptime: float = 0.0


def check_of(release: Release, process_type: str, port: int) -> Check:
    """The check of a process type: the first startup check of app.json or `checks:set` with defaults for the rest.
    `port` is the box's usual one."""
    listed = release.checks.get(process_type, [])
    startup: dict[str, Any] = next((c for c in listed if c.get("type", "startup") == "startup"), {})
    is_web = process_type == "web"
    port = release.port or port
    return Check(
        path=startup.get("path"),
        content=startup.get("content"),
        port=int(startup.get("port", port)) if is_web or startup.get("path") else None,
        attempts=max(1, int(startup.get("attempts", 3))),
        wait=float(startup.get("wait", 5)),
        timeout=max(0.1, float(startup.get("timeout", 5))),
        initial_delay=float(startup.get("initialDelay", 0)),
        uptime=float(startup.get("uptime", 0 if is_web else _WORKER_UPTIME)),
    )


class Health:
    """Checks instances over plain HTTP at their own addresses."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def wait(self, app: App, row: InstanceRow, check: Check, host: str, deadline: float) -> float:
        """Return the seconds it took until the instance was healthy. Raises HealthCheckFailed saying what was seen.
        `deadline` is on the monotonic clock; `host` is sent as the Host header."""
        started = time.monotonic()
        await asyncio.sleep(min(check.initial_delay, max(0.0, deadline - started)))
        if check.port is not None:
            await self._unless_ended(app, row, self._until_answer(app, row, check, host, deadline))
        up_at = started + check.uptime
        while (left := up_at - time.monotonic()) > 0:
            await self._look(app, row)
            if time.monotonic() > deadline:
                raise HealthCheckFailed(
                    f"{_name(row)} is up, but its uptime of {check.uptime:g} s is longer than a deployment may take",
                    hint="Set a shorter one with checks:set, or raise run.start_timeout in paasd.toml.",
                )
            await asyncio.sleep(min(left, _LOOK))
        await self._look(app, row)
        return time.monotonic() - started

    async def _unless_ended(self, app: App, row: InstanceRow, answer: Coroutine[Any, Any, None]) -> None:
        """Wait for `answer`, but not longer than the instance runs: a connection to one that ended hangs."""
        asking, watching = asyncio.create_task(answer), asyncio.create_task(self._watch(app, row))
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
        url = f"http://{row.address}:{check.port}{check.path or '/'}"
        headers = {"Host": host, "User-Agent": "paasd-health-check"}
        wrong, seen = 0, ""
        timeout = aiohttp.ClientTimeout(total=check.timeout)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session:
            while time.monotonic() < deadline:
                status, text = await _get(session, url, deadline)
                if status and _acceptable(check, status, text):
                    return
                if status:
                    wrong, seen = wrong + 1, _described(check, status)
                    if wrong >= check.attempts:
                        raise HealthCheckFailed(
                            f"{_name(row)}: {seen} ({wrong} times)", hint=_ANSWER_HINT.format(app.name)
                        )
                    await asyncio.sleep(min(check.wait, max(0.0, deadline - time.monotonic())))
                else:
                    seen = text or seen
                    await asyncio.sleep(_POLL)
        raise await self._silent(app, row, check, seen)

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
                f"{_name(row)} listens on port {check.port}, but does not answer there: {seen or 'connection refused'}",
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


_ANSWER_HINT = "Look at the instance's log above; set another path with: checks:set {} web --path /health"
_EXIT_HINT = "The end of its log is above; try the command yourself with: run {} <command>"


CHECK_SETTINGS = {
    "path": "HTTP path that must answer 200 to 399; without one any HTTP answer will do",
    "content": "text its answer must hold",
    "attempts": "wrong answers before the check fails (3)",
    "wait": "seconds between two attempts (5)",
    "timeout": "seconds for one answer (5)",
    "initialDelay": "seconds before the first attempt (0)",
    "uptime": "seconds the instance must stay up (web 0, others 3)",
}
_TEXT_SETTINGS = ("path", "content")


def validated(settings: Mapping[str, str | int | float | None]) -> dict[str, str | int | float | None]:
    """Settings as `checks:set` takes them; None unsets one. Raises InvalidInput."""
    for name, value in settings.items():
        if name not in CHECK_SETTINGS:
            raise InvalidInput(f"unknown check setting {shown(name)}", hint=f"Known: {', '.join(CHECK_SETTINGS)}")
        if value is None:
            continue
        if name in _TEXT_SETTINGS:
            if not isinstance(value, str) or not value.isprintable() or len(value) > 500:
                raise InvalidInput(f"{name} must be printable text of at most 500 characters")
        elif isinstance(value, str) or not 0 <= value <= 65535:
            raise InvalidInput(f"{name} must be a number from 0 to 65535")
    path = settings.get("path")
    if isinstance(path, str) and not path.startswith("/"):
        raise InvalidInput("path must start with /", hint="For example: --path /health")
    return dict(settings)


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


def merged(from_repository: Mapping[str, Any], from_user: Mapping[str, Any]) -> dict[str, Any]:
    """`healthchecks` of app.json with what `checks:set` said laid over each type's first check."""
    result = {name: list(checks) for name, checks in from_repository.items()}
    for name, values in from_user.items():
        first, *rest = result.get(name) or [{}]
        result[name] = [{**first, **values}, *rest]
    return result


async def _get(session: aiohttp.ClientSession, url: str, deadline: float) -> tuple[int, str]:
    """Status and start of the body; status 0 and what went wrong when there was no HTTP answer."""
    try:
        async with asyncio.timeout(max(0.05, deadline - time.monotonic())):
            async with session.get(url, allow_redirects=False) as response:
                body = b""
                while len(body) < _MAX_BODY and (piece := await response.content.read(_MAX_BODY - len(body))):
                    body += piece
                return response.status, body.decode(errors="replace")
    except aiohttp.ClientConnectorError:
        return 0, ""
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return 0, "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"


def _acceptable(check: Check, status: int, text: str) -> bool:
    if check.path is None and check.content is None:
        return True
    return 200 <= status < 400 and (check.content is None or check.content in text)


def _described(check: Check, status: int) -> str:
    if 200 <= status < 400:
        return f"GET {check.path or '/'} answered {status}, but without the text {check.content!r}"
    return f"GET {check.path or '/'} answered {status}, expected 200 to 399"


def _name(row: InstanceRow) -> str:
    return f"{row.process_type}.{row.number}"
