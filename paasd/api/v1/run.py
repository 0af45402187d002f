"""One-off commands, over a WebSocket.

The client sends binary frames for standard input and text frames `{"resize": [columns, rows]}` or `{"eof": true}`;
the daemon sends binary frames whose first byte is the stream (1 output, 2 errors) and ends with the text frame
`{"exit": status}` or `{"error": problem}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated

import pydantic
from aiohttp import WSMsgType, web

from paasd.api.operations import Body, Call, Operation, look_for_absence
from paasd.drivers.base import OneOff
from paasd.errors import InvalidInput, PaasdError
from paasd.identity.policy import Action
from paasd.one_off import OneOffs

_MAX_COMMAND = 64 * 1024
_Size = Annotated[int, pydantic.Field(ge=1, le=10_000)]


class _Control(Body):
    """A text frame of the client."""

    resize: tuple[_Size, _Size] | None = None
    eof: bool = False


class RunResource:
    def __init__(self, one_offs: OneOffs) -> None:
        self._one_offs = one_offs

    def operations(self) -> Sequence[Operation]:
        summary = (
            "Run a command in the live image (WebSocket); `command=` JSON list, `columns=` and `rows=` for a terminal"
        )
        return [Operation("GET", "/apps/{app}/run", Action.RUN, self.run, summary)]

    async def run(self, call: Call) -> web.StreamResponse:
        command = _command(call.request.query.get("command", "[]"))
        columns, rows = call.number("columns"), call.number("rows")
        terminal = (columns, rows) if columns and rows else None
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=1024 * 1024)
        await socket.prepare(call.request)
        try:
            one_off = await self._one_offs.start(call.actor, call.app, command, terminal)
            async with one_off:
                await socket.send_json({"exit": await _converse(call, socket, one_off)})
        except PaasdError as error:
            await socket.send_json({"error": error.problem()})
        except ConnectionError:
            pass  # the client left; the command's container is removed
        await socket.close()
        return socket


async def _converse(call: Call, socket: web.WebSocketResponse, one_off: OneOff) -> int:
    """Copy both ways until the command ends. Raises ConnectionError when the client leaves first."""
    output = asyncio.create_task(_copy_output(socket, one_off))
    listening = asyncio.create_task(_copy_input(socket, one_off))
    looking = asyncio.create_task(look_for_absence(call))
    try:
        await asyncio.wait([output, listening, looking], return_when=asyncio.FIRST_COMPLETED)
        if not output.done():
            if listening.done():
                listening.result()
            raise ConnectionError("the client left")
        output.result()
        return await one_off.wait()
    finally:
        for task in (output, listening, looking):
            task.cancel()
        await asyncio.gather(output, listening, looking, return_exceptions=True)


async def _copy_output(socket: web.WebSocketResponse, one_off: OneOff) -> None:
    while (piece := await one_off.read()) is not None:
        await socket.send_bytes(bytes([piece[0]]) + piece[1])


async def _copy_input(socket: web.WebSocketResponse, one_off: OneOff) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await one_off.write(message.data)
        elif message.type is WSMsgType.TEXT:
            control = _control(message.data)
            if control.resize:
                await one_off.resize(*control.resize)
            elif control.eof:
                await one_off.close_input()


def _control(text: str) -> _Control:
    try:
        return _Control.model_validate_json(text)
    except pydantic.ValidationError:
        raise InvalidInput('a text frame is {"resize": [columns, rows]} or {"eof": true}') from None


def _command(text: str) -> list[str]:
    try:
        command = json.loads(text)
    except json.JSONDecodeError:
        command = None
    if (
        not isinstance(command, list)
        or not command
        or not all(isinstance(word, str) and "\0" not in word for word in command)
        or len(text) > _MAX_COMMAND
    ):
        raise InvalidInput("command must be a JSON list of words", hint='For example: ["python", "manage.py", "shell"]')
    return command
