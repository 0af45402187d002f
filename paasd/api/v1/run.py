"""One-off commands: with their client over a WebSocket, or on their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
from aiohttp import web

from paasd.api.operations import NDJSON, Body, Call, Operation, while_present
from paasd.api.v1.logs import encoded
from paasd.api.v1.shapes import run_shape
from paasd.api.v1.terminal import conversation, converse, environment, terminal_of, words
from paasd.app_settings import duration
from paasd.errors import InvalidInput
from paasd.identity.policy import Action
from paasd.models import MAX_CONFIG_VALUE, Secret
from paasd.names import config_key, shown
from paasd.one_off import Command, OneOffs
from paasd.run.runs import Ending, Run, Runs, RunStatus

_LONGEST = 7 * 86400
_MAX_LINES = 5000


class NewRun(Body):
    """`timeout`: 90s, 5m, 2h."""

    command: list[str]
    env: dict[str, str] = pydantic.Field(default_factory=dict)
    timeout: str | None = None


class RunResource:
    def __init__(self, one_offs: OneOffs, runs: Runs) -> None:
        self._one_offs = one_offs
        self._runs = runs

    def operations(self) -> Sequence[Operation]:
        attached = (
            "Run a command in the live image (WebSocket); `command=` JSON list, `columns=` and `rows=` for a terminal,"
            " `timeout=`, `begin=1` when the first frame gives variables"
        )
        path, run = "/apps/{app}/runs", Action.RUN
        return [
            Operation("GET", "/apps/{app}/run", run, self.run, attached),
            Operation("GET", path, run, self.listing, "One-off commands, newest first; `running=1` for those only"),
            Operation("POST", path, run, self.detach, "Run a command that goes on without its client", NewRun),
            Operation("GET", f"{path}/{{number}}", run, self.info, "One of them"),
            Operation("DELETE", f"{path}/{{number}}", run, self.stop, "End one"),
            Operation(
                "GET",
                f"{path}/{{number}}/logs",
                run,
                self.logs,
                "What a detached one wrote, as ndjson; `tail=N`, `follow=1`",
            ),
        ]

    async def run(self, call: Call) -> web.StreamResponse:
        query = call.request.query
        command, timeout, terminal = (
            _command(words(query.get("command", "[]"))),
            query.get("timeout"),
            terminal_of(call),
        )
        seconds = _seconds(timeout)
        async with conversation(call) as socket:
            env = _environment(await environment(call, socket))
            request = Command(command, env, seconds)
            async with self._one_offs.attached(call.actor, call.app, request, terminal) as attached:
                attached.exit_code = await converse(call, socket, attached.one_off)
            await socket.send_json({"exit": attached.exit_code})
        return socket

    async def listing(self, call: Call) -> dict[str, Any]:
        if call.number("running"):
            found = (await self._runs.running(call.app))[::-1]
            return {"items": [run_shape(run) for run in found], "before": None}
        found = await self._runs.of(call.app, before=call.number("before"), limit=call.limit())
        before = found[-1].number if len(found) == call.limit() else None
        return {"items": [run_shape(run) for run in found], "before": before}

    async def detach(self, call: Call) -> dict[str, Any]:
        body: NewRun = call.body
        command = Command(_command(body.command), _environment(body.env), _seconds(body.timeout))
        return run_shape(await self._one_offs.detach(call.actor, call.app, command))

    async def info(self, call: Call) -> dict[str, Any]:
        return run_shape(await self._runs.get(call.app, call.number("number")))

    async def stop(self, call: Call) -> dict[str, Any]:
        ending = Ending(RunStatus.STOPPED, reason=f"stopped by {call.actor.name}")
        run = await self._one_offs.stop(call.app, call.number("number"), ending)
        return {"number": run.number}

    async def logs(self, call: Call) -> web.StreamResponse:
        run, tail = await self._runs.get(call.app, call.number("number")), call.number("tail", 1000)
        return await stream_run(call, self._one_offs, run, tail)


async def stream_run(call: Call, one_offs: OneOffs, run: Run, tail: int) -> web.StreamResponse:
    """A run's output as ndjson. What is wrong with the request is told before anything is sent."""
    if tail > _MAX_LINES:
        raise InvalidInput(f"tail is at most {_MAX_LINES}")
    one_offs.check_readable(run)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Accel-Buffering": "no"})
    await response.prepare(call.request)

    async def copy() -> None:
        async for line in one_offs.logs(run, tail, follow=bool(call.number("follow"))):
            await response.write(encoded(line))

    await while_present(call, copy())
    return response


def _command(command: Sequence[str]) -> list[str]:
    if not command or not command[0] or any("\0" in word for word in command):
        raise InvalidInput("there is no command to run", hint="For example: run blog python manage.py migrate")
    return list(command)


def _environment(env: Mapping[str, str]) -> dict[str, Secret]:
    for name, value in env.items():
        config_key(name)
        if "\0" in value or len(value) > MAX_CONFIG_VALUE:
            raise InvalidInput(f"the value of {name} is too long, or holds a null character")
    return {name: Secret(value) for name, value in env.items()}


def _seconds(timeout: str | None) -> float | None:
    if timeout is None:
        return None
    try:
        return float(duration(1, _LONGEST)(timeout))
    except ValueError as error:
        raise InvalidInput(f"the timeout must be {error}, not {shown(timeout)}") from None
