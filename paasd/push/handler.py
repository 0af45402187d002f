"""Runs one SSH session, whichever transport carried it: a git service, or a paasd command in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from paasd.errors import InvalidInput, PaasdError, TooMany
from paasd.progress import without_controls
from paasd.push.commands import CommandRequest, GitRequest, parse
from paasd.push.pump import copy
from paasd.push.session import FrontDoors, GitService, Session
from paasd.push.ssh_forward import Places

log = logging.getLogger(__name__)

MAX_COMMANDS = 64
MAX_SESSIONS_PER_KEY = 24
_BASE_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


class SessionHandler:
    def __init__(self, doors: FrontDoors, *, linger: float = 120.0) -> None:
        """`linger`: seconds git may go on after its client went away, before it is terminated."""
        self._doors = doors
        self._linger = linger
        self._git = shutil.which("git", path=_BASE_ENVIRONMENT["PATH"]) or "git"
        self._threads = ThreadPoolExecutor(MAX_COMMANDS, thread_name_prefix="ssh-command")
        self._commands = 0
        self._keys: Counter[str] = Counter()
        self.forwards = Places()

    async def handle(self, session: Session) -> int:
        """Run the session to its end, close its descriptors, return the exit status."""
        try:
            with self._place(session.key_id):
                return await self._run(session)
        except PaasdError as error:
            log.warning("ssh: %s: refused: %s", session.actor.name, error.detail)
            complain(session.stderr, error)
            await self._doors.refused(session, error)
        except Exception:
            log.exception("ssh: a session of %s failed", session.actor.name)
            complain(
                session.stderr, PaasdError("an internal error ended the session; the daemon's log has the details")
            )
        finally:
            for fd in {session.stdin, session.stdout, session.stderr}:
                os.close(fd)
        return 1

    def close(self) -> None:
        """Stop taking commands; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, session: Session) -> int:
        request = parse(session.command)
        if isinstance(request, GitRequest):
            if session.terminal:
                raise InvalidInput("git needs a connection without a terminal; leave out ssh -t")
            service = await self._doors.git(session, request.service, request.app)
            return await self._run_git(session, request, service)
        if not request.argv:
            raise InvalidInput(f"Hello {session.actor.name}! There is no shell here; add a command, for example: help")
        return await self._run_command(session, request)

    async def _run_command(self, session: Session, request: CommandRequest) -> int:
        if self._commands >= MAX_COMMANDS:
            raise TooMany(f"{MAX_COMMANDS} commands are running already; try again in a moment")
        self._commands += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._doors.run_command, session, request.argv)
        finally:
            self._commands -= 1

    async def _run_git(self, session: Session, request: GitRequest, service: GitService) -> int:
        environment = _BASE_ENVIRONMENT | dict(service.environment)
        if session.git_protocol:
            environment["GIT_PROTOCOL"] = session.git_protocol
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as its:
            stdin, to_git = _pipe(its, ours)
            from_git, stdout = _pipe(ours, its)
            errors_from_git, stderr = _pipe(ours, its)
            process = await asyncio.create_subprocess_exec(
                self._git,
                request.service.removeprefix("git-"),
                str(service.repository),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
            its.close()
            for fd in (session.stdin, session.stdout, session.stderr, to_git, from_git, errors_from_git):
                os.set_blocking(fd, False)
            outputs = asyncio.gather(
                copy(from_git, session.stdout, session.gone), copy(errors_from_git, session.stderr, session.gone)
            )
            feeding = asyncio.create_task(_feed(session, to_git, ours))
            try:
                return await self._wait(process, session, outputs)
            finally:
                await _cancel(feeding)
                await _cancel(outputs)

    async def _wait(self, process: asyncio.subprocess.Process, session: Session, outputs: asyncio.Future[Any]) -> int:
        ended = asyncio.ensure_future(process.wait())
        leaving = asyncio.ensure_future(session.gone.wait())
        try:
            await asyncio.wait({ended, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait({ended}, timeout=self._linger)
        finally:
            leaving.cancel()
            if not ended.done():
                await asyncio.shield(_terminate(process, ended))
        # A hook's forgotten child may hold the pipes open.
        await asyncio.wait({outputs}, timeout=5)
        status = ended.result()
        return status if status >= 0 else 128 - status

    @contextlib.contextmanager
    def _place(self, key_id: str) -> Iterator[None]:
        if self._keys[key_id] >= MAX_SESSIONS_PER_KEY:
            raise TooMany(f"this key has {MAX_SESSIONS_PER_KEY} sessions open already; close some of them")
        self._keys[key_id] += 1
        try:
            yield
        finally:
            self._keys[key_id] -= 1
            if not self._keys[key_id]:
                del self._keys[key_id]


def complain(fd: int, error: PaasdError) -> None:
    """Show an error to the client. It fits the empty pipe, so the loop is not held up."""
    lines = [*error.detail.splitlines(), *error.hint.splitlines()]
    text = "".join(f" !     {without_controls(line)}\n" for line in lines)
    with contextlib.suppress(OSError):
        os.set_blocking(fd, False)
        os.write(fd, text.encode(errors="replace")[:4000])


async def _feed(session: Session, to_git: int, ours: contextlib.ExitStack) -> None:
    """Hand the client's data to git; close git's input when the client stops or goes away."""
    copying = asyncio.ensure_future(copy(session.stdin, to_git))
    leaving = asyncio.ensure_future(session.gone.wait())
    try:
        await asyncio.wait({copying, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(copying)
        leaving.cancel()
    end = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(end, to_git, inheritable=False)  # closes the pipe; the number stays ours for `ours` to close
    os.close(end)


async def _terminate(process: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    """End what git waits for before git itself: then it cleans up its quarantine directory, which since 2.39 it does
    not when a signal ends it."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        await asyncio.to_thread(_signal_others, process.pid, number)
        await asyncio.wait({ended}, timeout=patience)
        if ended.done():
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.wait({ended}, timeout=10)


def _signal_others(session: int, number: int) -> None:
    """Signal the processes of git's session except git, orphans of its hooks included. Blocking."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid != session and os.getsid(pid) == session:
                os.kill(pid, number)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write
