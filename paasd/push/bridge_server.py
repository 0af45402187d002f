"""The daemon's side of `bridge.py`: the socket that sshd's children talk to. Owns `run_dir/ssh.sock`."""

from __future__ import annotations

import array
import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import pwd
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paasd.push.commands import MAX_COMMAND, protocol
from paasd.push.handler import SessionHandler
from paasd.push.session import FrontDoors, Session, Terminal

log = logging.getLogger(__name__)
_MAX_MESSAGE = 8 * MAX_COMMAND  # JSON escapes grow text
_PATIENCE = 20.0


class BridgeServer:
    def __init__(
        self, path: Path, user: pwd.struct_passwd, key_line: Callable[[str, str], str], doors: FrontDoors
    ) -> None:
        self._path = path
        self._user = user
        self._key_line = key_line
        self._doors = doors
        self._handler = SessionHandler(doors)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[Session] = set()

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(str(self._path))
        os.chown(self._path, self._user.pw_uid, -1)
        self._path.chmod(0o600)
        self._listener.listen(128)
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def stop(self, grace: float) -> None:
        if self._accepting and self._listener:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._listener.close()
            self._path.unlink(missing_ok=True)
        await self._wait(grace)
        for session in list(self._sessions):
            session.leave()
        await self._wait(10)
        for task in self._tasks:
            task.cancel()
        await self._wait(10)
        self._handler.close()

    def disconnect_key(self, key_id: str) -> None:
        for session in list(self._sessions):
            if session.key_id == key_id:
                session.leave()

    async def _wait(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("ssh bridge: cannot accept: %s", error)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        descriptors: list[int] = []
        with sock:
            try:
                self._check_peer(sock)
                async with asyncio.timeout(_PATIENCE):
                    message = await _receive(sock, descriptors)
                if message.get("ask"):
                    await self._answer(sock, message)
                else:
                    await self._run(sock, message, descriptors)
            except (OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                log.warning("ssh bridge: %s: %s", type(error).__name__, error)
            except Exception:
                log.exception("ssh bridge: a session failed")
            finally:
                for fd in descriptors:
                    os.close(fd)

    def _check_peer(self, sock: socket.socket) -> None:
        """Whoever may speak here may claim any key: only sshd's children, which run as the login user."""
        _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid(), self._user.pw_uid):
            raise ValueError(f"uid {uid} may not speak for sshd")

    async def _answer(self, sock: socket.socket, message: dict[str, Any]) -> None:
        found = await self._doors.authenticate(message["type"], _decoded(message["key"]))
        line = self._key_line(message["type"], message["key"]) if found else ""
        await asyncio.get_running_loop().sock_sendall(sock, json.dumps({"line": line}).encode() + b"\n")

    async def _run(self, sock: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
        found = await self._doors.authenticate(message["type"], _decoded(message["key"]))
        if not found or len(descriptors) != 3:
            raise ValueError("a session of an unknown key, or without its descriptors")
        (actor, key_id), (stdin, stdout, stderr) = found, descriptors
        session = Session(
            actor,
            key_id,
            str(message["command"])[: MAX_COMMAND + 1],
            stdin,
            stdout,
            stderr,
            _terminal(message.get("terminal")),
            protocol(message.get("git_protocol") or ""),
        )
        descriptors.clear()  # the handler closes them
        self._sessions.add(session)
        watching = asyncio.create_task(_watch(sock, session))
        try:
            status = await self._handler.handle(session)
        finally:
            self._sessions.discard(session)
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(sock, str(status & 0xFF).encode())


async def _receive(sock: socket.socket, descriptors: list[int]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    data = b""
    while b"\n" not in data:
        if len(data) > _MAX_MESSAGE:
            raise ValueError("message too long")
        try:
            more, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(3 * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await _readable(loop, sock)
            continue
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.extend(array.array("i", payload[: len(payload) // 4 * 4]))
        if not more:
            raise ValueError("the bridge left")
        data += more
    message = json.loads(data.partition(b"\n")[0])
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


async def _watch(sock: socket.socket, session: Session) -> None:
    """Note window changes, until the bridge leaves: then the client is gone."""
    loop = asyncio.get_running_loop()
    data = b""
    while True:
        try:
            more = await loop.sock_recv(sock, 4096)
        except OSError:
            more = b""
        if not more or len(data) > 4096:
            session.leave()
            return
        *lines, data = (data + more).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                terminal = _terminal(json.loads(line)["terminal"])
                if terminal:
                    session.resize(terminal.columns, terminal.rows)


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _terminal(value: Any) -> Terminal | None:
    return Terminal(int(value[0]), int(value[1]), str(value[2])) if value else None


def _decoded(key: str) -> bytes:
    try:
        return base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ValueError("not a key") from None
