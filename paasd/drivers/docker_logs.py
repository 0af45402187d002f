"""Reads what containers wrote: the engine's 8-byte frames, put together to lines with their times."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator

from paasd.docker_engine import DockerEngine
from paasd.drivers.docker_containers import epoch
from paasd.errors import EngineNotFound
from paasd.models import LogLine

MAX_LINE = 16 * 1024
_HEADER = struct.Struct(">BxxxL")
_PART = 16 * 1024
_RESTART_POLL = 0.3


class LogReader:
    """Turns frames into lines. A frame is one message: a time, a space, text.

    A long line comes as several messages with one time: full parts, then a shorter one that may lack its line feed.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._frames = bytearray()
        self._open: dict[int, tuple[float, bytearray]] = {}
        self.last = "0"
        """Time of the last message, as the engine's `since` parameter wants it."""

    def feed(self, data: bytes) -> Iterator[LogLine]:
        self._frames += data
        while len(self._frames) >= _HEADER.size:
            stream, size = _HEADER.unpack_from(self._frames)
            end = _HEADER.size + size
            if len(self._frames) < end:
                return
            message = bytes(self._frames[_HEADER.size : end])
            del self._frames[:end]
            yield from self._message(stream, message)

    def flush(self) -> Iterator[LogLine]:
        """Lines that never got their end."""
        for stream, (at, text) in sorted(self._open.items()):
            yield self._line(stream, at, text)
        self._open.clear()

    def _message(self, stream: int, message: bytes) -> Iterator[LogLine]:
        timestamp, _, text = message.partition(b" ")
        at, self.last = epoch(timestamp.decode("ascii"))
        if stream in self._open and self._open[stream][0] != at:
            yield self._line(stream, *self._open.pop(stream))
        line = self._open.setdefault(stream, (at, bytearray()))[1]
        line += text.removesuffix(b"\n")[: MAX_LINE - len(line)]
        if len(text) != _PART or text.endswith(b"\n"):
            yield self._line(stream, *self._open.pop(stream))

    def _line(self, stream: int, at: float, text: bytearray) -> LogLine:
        return LogLine(at, self._title, text.decode(errors="backslashreplace").removesuffix("\r"), stderr=stream == 2)


async def follow_logs(
    engine: DockerEngine, name: str, title: str, *, tail: int, follow: bool
) -> AsyncIterator[LogLine]:
    """Lines of a container. The engine ends a followed log when the container exits: go on when it was restarted."""
    reader = LogReader(title)
    params: dict[str, object] = {"stdout": True, "stderr": True, "timestamps": True, "tail": tail, "follow": follow}
    while True:
        try:
            async with engine.stream("GET", f"/containers/{name}/logs", params=params) as stream:
                async for chunk in stream.chunks():
                    for line in reader.feed(chunk):
                        yield line
        except EngineNotFound:
            return
        for line in reader.flush():
            yield line
        if not follow or not await _runs_again(engine, name):
            return
        params |= {"tail": "all", "since": _just_after(reader.last)}


async def _runs_again(engine: DockerEngine, name: str) -> bool:
    while True:
        try:
            found = await engine.request("GET", f"/containers/{name}/json")
        except EngineNotFound:
            return False
        if found["State"]["Running"]:
            return True
        await asyncio.sleep(_RESTART_POLL)


def _just_after(since: str) -> str:
    seconds, _, nanoseconds = since.partition(".")
    total = int(seconds) * 10**9 + int(nanoseconds or 0) + 1
    return f"{total // 10**9}.{total % 10**9:09d}"
