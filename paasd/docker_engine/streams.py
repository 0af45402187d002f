"""Answers of the engine that come in pieces, and connections to processes in containers."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiodocker.stream import Stream

from paasd.docker_engine.failures import silent, translated
from paasd.errors import EngineError

MAX_JSON_LINE = 16 * 1024**2


class EngineStream:
    """The answer of a streaming call. Iterate it once, in one way."""

    def __init__(self, response: aiohttp.ClientResponse, what: str, idle_timeout: float | None) -> None:
        self._response = response
        self._what = what
        self._idle_timeout = idle_timeout

    async def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as they come. Raises EngineUnavailable after `idle_timeout` seconds of silence."""
        while True:
            with translated(self._what):
                try:
                    async with asyncio.timeout(self._idle_timeout):
                        chunk = await self._response.content.readany()
                except TimeoutError:
                    raise silent(self._what, self._idle_timeout or 0) from None
            if not chunk:
                return
            yield chunk

    async def json_lines(self) -> AsyncIterator[dict[str, Any]]:
        """JSON objects, one a line."""
        buffer = bytearray()
        async for chunk in self.chunks():
            buffer += chunk
            *lines, rest = buffer.split(b"\n")
            for line in lines:
                if line.strip():
                    yield jsonlib.loads(line)
            buffer = bytearray(rest)
            if len(buffer) > MAX_JSON_LINE:
                raise EngineError(f"{self._what}: the container engine sent a line of over {MAX_JSON_LINE} bytes")
        if buffer.strip():
            yield jsonlib.loads(buffer)


class Hijacked:
    """A raw connection to a process in a container."""

    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        self._what = what

    async def read(self) -> tuple[int, bytes] | None:
        """Next `(stream, data)`; stream 1 is output, 2 is error output. None at the end."""
        with translated(self._what):
            message = await self._stream.read_out()
        return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        with translated(self._what):
            await self._stream.write_in(data)

    async def close_input(self) -> None:
        """End the process's input; its output can still be read."""
        response = self._stream._resp
        transport = response.connection.transport if response is not None and response.connection else None
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    async def close(self) -> None:
        response = self._stream._resp
        if response is not None and response.connection is not None:
            response.connection.close()
        self._stream._closed = True
