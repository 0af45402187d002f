"""A conversation with a command, over a WebSocket.

The client sends binary frames for standard input and text frames `{"resize": [columns, rows]}` or `{"eof": true}`;
the daemon sends binary frames whose first byte is the stream (1 output, 2 errors) and ends with the text frame
`{"exit": status}` or `{"error": problem}`. With `begin=1` in the query the client's first frame is the text
`{"begin": {"env": {NAME: value}}}`: values are secrets, which do not belong into an address.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pydantic
from aiohttp import WSMsgType, web

from paasd.api.operations import Body, Call, look_for_absence
from paasd.drivers.base import OneOff
from paasd.errors import InvalidInput, PaasdError

_MAX_COMMAND = 64 * 1024
_BEGIN_TIMEOUT = 20.0
_Size = Annotated[int, pydantic.Field(ge=1, le=10_000)]


class _Begin(Body):
    env: dict[str, str] = pydantic.Field(default_factory=dict)


class _Control(Body):
    """A text frame of the client."""

    begin: _Begin | None = None
    resize: tuple[_Size, _Size] | None = None
    eof: bool = False


@asynccontextmanager
async def conversation(call: Call) -> AsyncIterator[web.WebSocketResponse]:
    """An open socket; what fails inside the block is told to the client."""
    socket = web.WebSocketResponse(heartbeat=20, max_msg_size=1024 * 1024)
    await socket.prepare(call.request)
    try:
        yield socket
    except PaasdError as error:
        await socket.send_json({"error": error.problem()})
    except ConnectionError:
        pass  # the client left
    await socket.close()


def terminal_of(call: Call) -> tuple[int, int] | None:
    columns, rows = call.number("columns"), call.number("rows")
    return (columns, rows) if columns and rows else None


async def environment(call: Call, socket: web.WebSocketResponse) -> dict[str, str]:
    """What the client's first frame says, if there is one. Raises InvalidInput."""
    if not call.number("begin"):
        return {}
    message = await socket.receive(timeout=_BEGIN_TIMEOUT)
    if message.type is not WSMsgType.TEXT:
        raise ConnectionError("the client left")
    begin = _control(message.data).begin
    return begin.env if begin else {}


async def converse(call: Call, socket: web.WebSocketResponse, one_off: OneOff) -> int:
    """Copy both ways until the command ends. Raises ConnectionError when the client leaves first."""
    output = asyncio.create_task(_copy_output(socket, one_off))
    listening = asyncio.create_task(_copy_input(socket, one_off))
    looking = asyncio.create_task(look_for_absence(call))
    tasks: list[asyncio.Task[Any]] = [output, listening, looking]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not output.done():
            if listening.done():
                listening.result()
            raise ConnectionError("the client left")
        output.result()
        # The output ends before the command where that has closed it, or the engine has.
        tasks.append(waiting := asyncio.create_task(one_off.wait()))
        await asyncio.wait([waiting, looking], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ConnectionError("the client left")
        return waiting.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def words(text: str) -> list[str]:
    """The words of a command, handed over as JSON. Raises InvalidInput."""
    try:
        command = json.loads(text)
    except json.JSONDecodeError:
        command = None
    if (
        not isinstance(command, list)
        or not all(isinstance(word, str) and "\0" not in word for word in command)
        or len(text) > _MAX_COMMAND
    ):
        raise InvalidInput("command must be a JSON list of words", hint='For example: ["python", "manage.py", "shell"]')
    return command
