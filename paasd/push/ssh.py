"""The embedded SSH server: needs no set-up. Accepts connections on the loop, lets strangers no further than the gates
allow, and gives a thread only to those that speak SSH."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paasd.config import SshConfig
from paasd.push import host_keys
from paasd.push.gates import Gate, Ticket
from paasd.push.handler import SessionHandler
from paasd.push.session import FrontDoors
from paasd.push.ssh_connection import Connection
from paasd.push.ssh_transport import BANNER, load_host_keys

log = logging.getLogger(__name__)
_MAX_VERSION_LINE = 255
_BACKLOG = 512


class EmbeddedSsh:
    def __init__(self, config: SshConfig, keys_dir: Path, doors: FrontDoors) -> None:
        self._config = config
        self._keys_dir = keys_dir
        self._doors = doors
        self._handler = SessionHandler(doors)
        self.gate = Gate(config.max_unauthenticated, config.max_per_source)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._greetings: set[asyncio.Task[None]] = set()
        self._connections: dict[Connection, Callable[[], None]] = {}
        self._host_keys: list[Any] = []

    @property
    def port(self) -> int:
        assert self._listener, "not started"
        return int(self._listener.getsockname()[1])

    async def start(self) -> None:
        paths = await asyncio.to_thread(host_keys.ensure, self._keys_dir)
        self._host_keys = await asyncio.to_thread(load_host_keys, paths)
        self._listener = _listen(self._config.address, self._config.port)
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def stop(self, grace: float) -> None:
        """Stop accepting, let running sessions end for up to `grace` seconds, then hang up on the rest."""
        if self._accepting:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        if self._listener:
            self._listener.close()
        for greeting in list(self._greetings):
            greeting.cancel()
        for connection in self._connections:
            connection.accepting = False
        await _wait_for(self._sessions(), grace)
        for connection in list(self._connections):
            connection.hang_up()
        await _wait_for(self._sessions(), 10)
        for task in self._sessions():
            task.cancel()
        await _wait_for(self._sessions(), 10)
        self._handler.close()

    async def disconnect_key(self, key_id: str) -> None:
        """End every connection that was authenticated with this key."""
        for connection in list(self._connections):
            if connection.identity and connection.identity.key_id == key_id:
                connection.hang_up()

    def _sessions(self) -> set[asyncio.Task[None]]:
        return {task for connection in self._connections for task in connection.tasks}

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the client was quicker
                log.warning("ssh: cannot accept: %s", error)
                await asyncio.sleep(0.1)
                continue
            greeting = asyncio.create_task(self._greet(sock, str(address[0])))
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, sock: socket.socket, address: str) -> None:
        """Exchange version lines without a thread: most attackers get no further."""
        deadline = asyncio.get_running_loop().time() + self._config.login_grace
        task = asyncio.current_task()
        assert task

        def evict() -> None:
            task.cancel()

        ticket = self.gate.enter(address, evict)
        try:
            if ticket is None:
                return
            async with asyncio.timeout_at(deadline):
                received = await _exchange_versions(sock)
            ticket.greeted = True
            self._connect(sock, received, ticket, deadline)
            sock, ticket = None, None  # type: ignore[assignment]
        except (TimeoutError, OSError, ValueError) as error:
            log.debug("ssh: %s: no SSH client: %s", address, error)
        finally:
            if ticket:
                ticket.leave()
            if sock:
                sock.close()

    def _connect(self, sock: socket.socket, received: bytes, ticket: Ticket, deadline: float) -> None:
        def admitted(_: Connection | None = None) -> None:
            grace.cancel()
            ticket.leave()

        idle = self._config.forward_idle
        connection = Connection(
            sock, received, self._host_keys, self._doors, self._handler, admitted, self._ended, idle
        )
        grace = asyncio.get_running_loop().call_at(deadline, connection.close)
        ticket.evict = connection.close
        self._connections[connection] = admitted
        connection.start()

    def _ended(self, connection: Connection) -> None:
        released = self._connections.get(connection)
        if released:
            released()
        if connection.tasks:
            # Kept until its sessions are over, so that stop() waits for them.
            asyncio.gather(*connection.tasks, return_exceptions=True).add_done_callback(
                lambda _: self._connections.pop(connection, None)
            )
        else:
            self._connections.pop(connection, None)


async def _exchange_versions(sock: socket.socket) -> bytes:
    """Send our version line and read the client's. Returns all that was received, the line first."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, f"{BANNER}\r\n".encode())
    received = b""
    while b"\n" not in received:
        data = await loop.sock_recv(sock, 8192)
        received += data
        if not data or len(received.partition(b"\n")[0]) > _MAX_VERSION_LINE:
            raise ValueError("no version line")
        if not received.startswith(b"SSH-2.0-"[: len(received)]):
            raise ValueError("not SSH 2.0")
    return received


def _listen(address: str, port: int) -> socket.socket:
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=address == "::")
    listener.setblocking(False)
    # Inherited by accepted sockets. Dead clients are noticed within about two minutes.
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, 60),
        (socket.TCP_KEEPINTVL, 15),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, 120_000),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return listener


async def _wait_for(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
