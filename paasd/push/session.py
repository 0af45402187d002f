"""One SSH session, whichever transport carried it: the value a front hands over and the doors it opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from paasd.errors import PaasdError
from paasd.forward import Forward
from paasd.models import Actor


@dataclass
class Terminal:
    """The client's pseudo terminal."""

    columns: int
    rows: int
    name: str = "xterm"


@dataclass(eq=False)
class Session:
    """An authenticated `exec` request. The three file descriptors belong to the session and are closed by its handler.

    `gone` is set when the client went away or pressed Ctrl-C on a terminal in cooked mode; `terminal.columns/rows`
    change when the client's window does, and `resized` is set then."""

    actor: Actor
    key_id: str
    command: str
    """As the client sent it, at most 64 KiB; may be hostile."""
    stdin: int
    stdout: int
    stderr: int
    terminal: Terminal | None = None
    git_protocol: str | None = None
    """Already checked to be `version=0`, `1` or `2`."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    resized: asyncio.Event = field(default_factory=asyncio.Event)
    _farewells: list[Callable[[], None]] = field(default_factory=list)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the daemon's loop once the client is gone, so that a command blocked in its own
        thread can be woken. It may be called twice; it must not block. May be used from any thread."""
        self._farewells.append(callback)
        if self.gone.is_set():
            callback()

    def leave(self) -> None:
        """Tell everybody that the client is gone. On the daemon's loop only."""
        self.gone.set()
        for callback in list(self._farewells):
            callback()

    def resize(self, columns: int, rows: int) -> None:
        """Note the client's new window size. On the daemon's loop only."""
        if self.terminal and columns > 0 and rows > 0:
            self.terminal.columns, self.terminal.rows = columns, rows
            self.resized.set()


@dataclass(frozen=True)
class GitService:
    """How to run git for one repository: prepared after the app and the permission were checked."""

    repository: Path
    environment: Mapping[str, str]


class FrontDoors(Protocol):
    """What the SSH front needs of the rest of the daemon. Coroutines run on the daemon's loop."""

    async def authenticate(self, key_type: str, key_blob: bytes) -> tuple[Actor, str] | None:
        """The user who owns this public key and the key's id, or None. Has no side effects: it is also asked for
        keys that are only offered and never prove themselves."""

    async def git(self, session: Session, service: str, app: str) -> GitService:
        """Authorize `git-receive-pack` or `git-upload-pack` on an app. Raises PaasdError."""

    async def forward(self, actor: Actor, host: str, port: int) -> Forward:
        """A connection to the port of an app's instance. Raises PaasdError for everything else; Conflict when nothing
        listens there."""

    async def refused(self, session: Session, error: PaasdError) -> None:
        """Keep a record of what a key asked for in vain."""

    def run_command(self, session: Session, argv: Sequence[str]) -> int:
        """Run one of paasd's commands as the session's actor; blocking, called in a thread; returns the exit status."""
