"""A table of the running Nginx: lines of text by key in its shared memory, changed live, with a mirror on disk for
Nginx's own next start."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Mapping
from pathlib import Path

from paasd import failpoints
from paasd.errors import InvalidInput
from paasd.names import shown
from paasd.route.control import ControlSocket
from paasd.route.files import commit_file, discard_file, prepare_file, read_text, replace_file

_KEY = re.compile(r"\S{1,300}")
_LINE = re.compile(r"[^\x00-\x1f\x7f]+")
_Changes = Mapping[str, str | None]


class LiveTable:
    """Safe to call from many tasks; changes happen one after another, each whole or not at all. Raises EdgeError when
    Nginx does not answer, InvalidInput for what is no line."""

    def __init__(self, control: ControlSocket, name: str, mirror: Path) -> None:
        self._control = control
        self._name = name
        self._mirror = mirror
        self._changing = asyncio.Lock()

    def is_new(self) -> bool:
        """Whether there was never a mirror, as after an upgrade from a version without this table. Blocking."""
        return not self._mirror.exists()

    def seed(self, lines: Mapping[str, str]) -> None:
        """Write the mirror before Nginx reads it for the first time. Blocking."""
        replace_file(self._mirror, _text(lines))

    async def live(self) -> dict[str, str]:
        """What the running Nginx has."""
        return _parse(await self._control.get(self._name))

    async def change(self, changes: _Changes) -> None:
        """Set lines, or take them away (None)."""
        async with self._changing:
            await self._change(changes, _parse(await self._mirrored()))

    async def add(self, wanted: Mapping[str, str]) -> None:
        """Have these lines, whatever else there is; what is right already is left alone."""
        async with self._changing:
            live = await self.live()
            if changes := {key: line for key, line in wanted.items() if live.get(key) != line}:
                await self._change(changes, _parse(await self._mirrored()))

    async def sync(self, wanted: Mapping[str, str]) -> None:
        """Make the table and its mirror equal `wanted`; what is right already is left alone."""
        async with self._changing:
            live = await self.live()
            changes: dict[str, str | None] = {key: line for key, line in wanted.items() if live.get(key) != line}
            changes |= dict.fromkeys(live.keys() - wanted.keys())
            if changes or await self._mirrored() != _text(wanted):
                await self._change(changes, wanted)

    async def _change(self, changes: _Changes, mirrored: Mapping[str, str]) -> None:
        """What can fail of the mirror comes before the change."""
        for key, line in changes.items():
            if not _KEY.fullmatch(key) or (line is not None and not _LINE.fullmatch(line)):
                raise InvalidInput(f"{shown(key)} {shown(line or '')} is no line of the edge's {self._name}")
        wanted = {key: line for key, line in {**mirrored, **changes}.items() if line is not None}
        async with failpoints.call("disk", lambda: OSError(errno.EIO, "fault")):
            await asyncio.to_thread(prepare_file, self._mirror, _text(wanted))
        try:
            if changes:
                await self._control.patch(self._name, "".join(f"{key} {line or ''}\n" for key, line in changes.items()))
        except BaseException:
            await asyncio.to_thread(discard_file, self._mirror)
            raise
        async with failpoints.call("disk", lambda: OSError(errno.EIO, "fault")):
            await asyncio.to_thread(commit_file, self._mirror)

    async def _mirrored(self) -> str:
        return await asyncio.to_thread(read_text, self._mirror) or ""


def _text(lines: Mapping[str, str]) -> str:
    return "".join(f"{key} {line}\n" for key, line in sorted(lines.items()))


def _parse(text: str) -> dict[str, str]:
    return {key: line for key, _, line in (whole.partition(" ") for whole in text.split("\n")) if line}
