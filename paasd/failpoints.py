"""Faults for tests, off without their environment variables.

`PAASD_FAILPOINT=name:kill|error|sleep=N` (several separated by commas) makes the daemon die, raise or stall when it
passes `hit(name)`.

`PAASD_FAULTS` names a file. Its line `<border> <N> kill|error|lost|sleep=<seconds>` is read when a push or another
change of an app begins, and holds for the Nth call over that border that this one makes, or a task that it began: the
process dies, the call fails before it is made, is made and seems to have failed, or is late. When that happens
`<file>.met` is written.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

from paasd.errors import PaasdError


def _parse(text: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in text.split(",") if ":" in part)


_concerned: ContextVar[bool] = ContextVar("_concerned", default=False)
"""Whether a call belongs to such a change."""


class _Faults:
    """Counts calls over one border and acts at one of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._border, self._left, self._action = "", 0, ""

    def read(self) -> None:
        if self._path.exists():
            border, number, action = self._path.read_text().split()
            self._border, self._left, self._action = border, int(number), action

    def due(self, border: str) -> str:
        """What is to happen at this call; nothing at most of them."""
        if border != self._border or not _concerned.get():
            return ""
        self._left -= 1
        if self._left:
            return ""
        self._border = ""
        return self._action

    def met(self) -> None:
        self._path.with_name(f"{self._path.name}.met").touch()


_armed = _parse(os.environ.get("PAASD_FAILPOINT", ""))
_faults = _Faults(Path(os.environ["PAASD_FAULTS"])) if os.environ.get("PAASD_FAULTS") else None


async def begin() -> None:
    """A push or another change of an app begins: its calls over the borders count from here."""
    if _faults is not None:
        await asyncio.to_thread(_faults.read)
        _concerned.set(True)


async def hit(name: str) -> None:
    """Do what the environment asks for at this point: nothing, SIGKILL to ourselves, an error, or a pause."""
    if action := _armed.get(name):
        await _act(action, lambda: PaasdError(f"fail point {name}"))


@asynccontextmanager
async def call(border: str, error: Callable[[], Exception]) -> AsyncIterator[None]:
    """Around a call over `border` (engine, edge, database, disk), which may fail with `error`."""
    action = _faults.due(border) if _faults is not None else ""
    if _faults is not None and action:
        await asyncio.to_thread(_faults.met)
        if action != "lost":
            await _act(action, error)
    yield
    if action == "lost":
        raise error()


async def _act(action: str, error: Callable[[], Exception]) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "error":
        raise error()
    elif action.startswith("sleep="):
        await asyncio.sleep(float(action.removeprefix("sleep=")))
