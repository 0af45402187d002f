"""Copying between non-blocking file descriptors on the event loop, in constant memory and with back-pressure."""

from __future__ import annotations

import asyncio
import os

CHUNK = 256 * 1024


async def copy(source: int, sink: int, gone: asyncio.Event | None = None) -> None:
    """Copy until `source` ends. Once the sink breaks, or `gone` is set, go on reading and throw the data away, so that
    whoever writes to `source` never blocks and is never killed by a broken pipe."""
    broken = False
    while data := await _read(source):
        broken = broken or not await _write(sink, data, gone)


async def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            await _ready(fd, for_writing=False)
        except OSError:  # a reset socket or a terminal that hung up ends like a closed pipe
            return b""


async def _write(fd: int, data: bytes, gone: asyncio.Event | None) -> bool:
    rest = memoryview(data)
    while rest:
        if gone is not None and gone.is_set():
            return False
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            await _ready(fd, for_writing=True, gone=gone)
        except OSError:
            return False
    return True


async def _ready(fd: int, *, for_writing: bool, gone: asyncio.Event | None = None) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if for_writing else (loop.add_reader, loop.remove_reader)
    leaving = asyncio.ensure_future(gone.wait()) if gone is not None else None
    if leaving is not None:
        leaving.add_done_callback(lambda _: _resolve(future))
    add(fd, _resolve, future)
    try:
        await future
    finally:
        remove(fd)
        if leaving is not None:
            leaving.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
