"""Reads log files that grow and are renamed to `<name>.1` when they are full."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from paasd.route.access_logs import open_log

_BLOCK = 256 * 1024
_LOOK = 0.25
Wanted = Callable[[bytes], bool]


def every(line: bytes) -> bool:
    return True


def last_lines(path: Path, most: int, wanted: Wanted = every, end: int | None = None) -> list[bytes]:
    """The last lines of the file, up to its byte `end`, and of the one before it, oldest first. Blocking."""
    found: list[bytes] = []
    for each, last in ((path, end), (path.with_name(f"{path.name}.1"), None)):
        if len(found) < most and (file := open_log(each)):
            with file:
                for line in _backwards(file, last):
                    if wanted(line):
                        found.append(line)
                    if len(found) >= most:
                        break
    return found[::-1]


def _backwards(file: BinaryIO, end: int | None) -> Iterator[bytes]:
    """Lines before the byte `end`, the last first, without half a line that is being written."""
    position, rest = file.seek(0, os.SEEK_END) if end is None else end, b""
    is_cut = True
    while position:
        start = max(0, position - _BLOCK)
        file.seek(start)
        data = file.read(position - start) + rest
        if is_cut:
            data = data[: data.rfind(b"\n") + 1]
            is_cut = not data
        rest, *lines = data.split(b"\n")
        position = start
        yield from (line for line in reversed(lines) if line)
    if rest:
        yield rest


async def follow(path: Path, most: int, wanted: Wanted = every) -> AsyncGenerator[bytes, None]:
    """The last lines, then new ones as they come. Ends never; close it."""
    follower = await asyncio.to_thread(_Follower, path)
    async with contextlib.aclosing(follower.lines()) as lines:
        for line in await asyncio.to_thread(last_lines, path, most, wanted, follower.begins):
            yield line
        async for line in lines:
            if wanted(line):
                yield line


class _Follower:
    """Lines that are written from now on, over renamings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_log(path)
        self._rest = b""
        self._leaving = False
        self.begins = self._file.seek(0, os.SEEK_END) if self._file else 0

    async def lines(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                lines = await asyncio.to_thread(self._step)
                for line in lines:
                    yield line
                if not lines:
                    await asyncio.sleep(_LOOK)
        finally:
            if self._file:
                self._file.close()

    def _step(self) -> list[bytes]:
        data = self._file.read(_BLOCK) if self._file else b""
        if not data:
            self._look_for_next()
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line for line in lines if line]

    def _look_for_next(self) -> None:
        """A file that was renamed is read once more a moment later: who had it open may have written on."""
        if self._file and not self._was_renamed(self._file):
            self._leaving = False
        elif self._file and not self._leaving:
            self._leaving = True
        else:
            if self._file:
                self._file.close()
            self._file, self._rest, self._leaving = open_log(self._path), b"", False

    def _was_renamed(self, file: BinaryIO) -> bool:
        try:
            present, own = os.stat(self._path, follow_symlinks=False), os.fstat(file.fileno())
        except FileNotFoundError:
            return True
        is_other = (present.st_dev, present.st_ino) != (own.st_dev, own.st_ino)
        return is_other or own.st_size < file.tell()  # or it was emptied
