"""One client of the embedded SSH server, from its version line to its end: who it is and which sessions it runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from paasd.errors import Conflict, Forbidden, PaasdError
from paasd.forward import Forward
from paasd.models import Actor
from paasd.names import shown
from paasd.push.commands import MAX_COMMAND, protocol
from paasd.push.handler import SessionHandler
from paasd.push.session import FrontDoors, Session, Terminal
from paasd.push.ssh_channel import Ends, Pump, leaver
from paasd.push.ssh_forward import ForwardPump
from paasd.push.ssh_transport import (
    KEEPALIVE,
    OPEN_SUCCEEDED,
    PROHIBITED,
    RESOURCE_SHORTAGE,
    UNREACHABLE,
    ServerInterface,
    Transport,
    Wire,
)

log = logging.getLogger(__name__)
MAX_SESSIONS, MAX_FORWARDS = 10, 32
_EXPLANATION = "this server runs Git, its commands, and forwards to ports of apps"
_FORWARD_TIMEOUT = 10
_AUTHENTICATE_TIMEOUT = 15


@dataclass(frozen=True)
class Identity:
    actor: Actor
    key_id: str
    key_type: str
    blob: bytes


@dataclass
class ChannelState:
    terminal: Terminal | None = None
    git_protocol: str | None = None
    command: str | None = None
    """What was asked for; a channel runs one thing only."""
    scheduled: bool = False
    session: Session | None = None
    pump: Pump | None = None
    forward: Forward | None = None
    """Where a forwarded channel goes, until its pump has it. Whoever takes it from here ends it."""

    forwarded: bool = False


class Connection(ServerInterface):  # type: ignore[misc]
    """Methods called by paramiko run in the transport's thread; those that start with `_on_loop` on the loop."""

    def __init__(
        self,
        sock: socket.socket,
        received: bytes,
        host_keys: list[Any],
        doors: FrontDoors,
        handler: SessionHandler,
        on_authenticated: Callable[[Connection], None],
        on_end: Callable[[Connection], None],
        forward_idle: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._doors = doors
        self._handler = handler
        self._on_authenticated = on_authenticated
        self._on_end = on_end
        self._idle = forward_idle
        self.explanation = _EXPLANATION
        self._channels: dict[int, ChannelState] = {}
        self._wire = Wire(sock, received)
        self._transport = Transport(self._wire, host_keys, self)
        self.identity: Identity | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.accepting = True

    def start(self) -> None:
        self._transport.server_object = self
        self._transport.server_mode = True
        self._transport.active = True
        self._transport.set_keepalive(KEEPALIVE)
        self._transport.start()

    def close(self) -> None:
        """End the connection and with it all its sessions. Does not block."""
        self._wire.shut()

    def hang_up(self) -> None:
        """Tell the sessions that the client is gone, then close. On the loop only."""
        for state in list(self._channels.values()):
            if state.session:
                state.session.leave()
        self.close()

    # Authentication

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def identify(self, key_type: str, blob: bytes) -> Identity | None:
        asked = asyncio.run_coroutine_threadsafe(self._doors.authenticate(key_type, blob), self._loop)
        try:
            found = asked.result(_AUTHENTICATE_TIMEOUT)
        except (Exception, concurrent.futures.CancelledError):
            log.exception("ssh: a key could not be looked up")
            return None
        return Identity(found[0], found[1], key_type, blob) if found else None

    def proved(self, identity: object) -> bool:
        assert isinstance(identity, Identity)
        self.identity = identity
        self._tell_loop(self._on_authenticated, self)
        return True

    def ended(self) -> None:
        for state in self._channels.values():
            self._tell_loop(self._on_loop_drop, state)
        self._tell_loop(self._on_end, self)

    # Channels

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self.explanation = _EXPLANATION
        if kind != "session" or not self.accepting:
            return int(PROHIBITED)
        if self._open(forwarded=False) >= MAX_SESSIONS:
            return self._short(f"this connection has {MAX_SESSIONS} sessions open already")
        self._channels[chanid] = ChannelState()
        return int(OPEN_SUCCEEDED)

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: tuple[str, int]) -> int:
        """`ssh -L`. Blocks this client's other channels for as long as it takes to connect."""
        self.explanation = _EXPLANATION
        if not self.accepting or self.identity is None:
            return int(PROHIBITED)
        if self._open(forwarded=True) >= MAX_FORWARDS:
            return self._short(f"this connection has {MAX_FORWARDS} forwarded ones open already")
        # With a command, so that nothing else can be asked of it.
        state = ChannelState(command="", scheduled=True, forwarded=True)
        asked = asyncio.run_coroutine_threadsafe(self._on_loop_forward(state, self.identity, *destination), self._loop)
        try:
            asked.result(_FORWARD_TIMEOUT)
        except PaasdError as error:
            self.explanation = f"{error.detail}. {error.hint}".strip()
            return int(UNREACHABLE if isinstance(error, Conflict) else PROHIBITED)
        except (Exception, concurrent.futures.CancelledError):
            asked.cancel()
            # It may have been done just then. The loop gets this after the cancelling.
            self._tell_loop(self._on_loop_drop, state)
            log.exception("ssh: a connection could not be forwarded")
            return int(PROHIBITED)
        self._channels[chanid] = state
        return int(OPEN_SUCCEEDED)

    def opened(self, channel: Any) -> None:
        state = self._channels[channel.chanid]
        if (forward := state.forward) is not None:
            ended = partial(self._tell_loop, self._on_loop_end_forward, forward)
            pump = ForwardPump(channel, forward.connection, self._idle, ended)
            pump.start()
            state.pump, state.forward = pump, None

    def _open(self, *, forwarded: bool) -> int:
        """How many channels of a kind there are."""
        live = self._transport.channels
        for old in [number for number in self._channels if number not in live]:
            del self._channels[old]
        return sum(state.forwarded == forwarded for state in self._channels.values())

    def _short(self, explanation: str) -> int:
        self.explanation = explanation
        return int(RESOURCE_SHORTAGE)

    def check_channel_env_request(self, channel: Any, name: bytes, value: bytes) -> bool:
        allowed = protocol(value.decode("ascii", "replace")) if name == b"GIT_PROTOCOL" else None
        self._channels[channel.chanid].git_protocol = allowed or self._channels[channel.chanid].git_protocol
        return allowed is not None

    def check_channel_pty_request(self, channel: Any, term: bytes, width: int, height: int, *_: Any) -> bool:
        state = self._channels[channel.chanid]
        if state.command is not None:
            return False
        state.terminal = Terminal(width or 80, height or 24, term.decode("ascii", "replace")[:64])
        return True

    def check_channel_window_change_request(self, channel: Any, width: int, height: int, *_: Any) -> bool:
        state = self._channels[channel.chanid]
        if state.session and state.pump:
            state.pump.resize(width, height)
            self._tell_loop(state.session.resize, width, height)
        elif state.terminal:
            state.terminal = Terminal(width, height, state.terminal.name)
        return state.terminal is not None

    def check_channel_shell_request(self, channel: Any) -> bool:
        return self.check_channel_exec_request(channel, b"")

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        state = self._channels[channel.chanid]
        if state.command is not None:
            return False
        state.command = command[: MAX_COMMAND + 1].decode(errors="surrogateescape")
        return True

    def check_channel_subsystem_request(self, channel: Any, name: str) -> bool:
        return False

    def requested(self, channel: Any) -> None:
        state = self._channels.get(channel.chanid)
        if state and state.command is not None and not state.scheduled:
            # Only now, after the reply to the request: a fast session must not end before its start was confirmed.
            state.scheduled = True
            self._tell_loop(self._on_loop_start, channel, state)

    def stirred(self, channel: Any) -> None:
        state = self._channels.get(channel.chanid)
        if state and state.pump:
            state.pump.wake.set()

    # On the loop

    def _on_loop_start(self, channel: Any, state: ChannelState) -> None:
        task = asyncio.create_task(self._run_guarded(channel, state))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _on_loop_forward(self, state: ChannelState, identity: Identity, host: str, port: int) -> None:
        """Raises PaasdError. The key may have been revoked since the connection began."""
        found = await self._doors.authenticate(identity.key_type, identity.blob)
        if not found:
            self.hang_up()
            raise Forbidden("this key may not be used any more")
        self._handler.forwards.take(identity.key_id)
        try:
            state.forward = await self._doors.forward(found[0], host, port)
        except BaseException as error:
            self._handler.forwards.give_back(identity.key_id)
            if isinstance(error, PaasdError):
                log.warning("ssh: %s: not forwarded to %s:%s: %s", found[0].name, shown(host), port, error.detail)
            raise

    def _on_loop_drop(self, state: ChannelState) -> None:
        """Of a channel that got no pump."""
        forward, state.forward = state.forward, None
        if forward is not None:
            self._on_loop_end_forward(forward)

    def _on_loop_end_forward(self, forward: Forward) -> None:
        assert self.identity is not None
        forward.end()
        self._handler.forwards.give_back(self.identity.key_id)

    async def _run_guarded(self, channel: Any, state: ChannelState) -> None:
        try:
            await self._run(channel, state)
        except Exception:
            log.exception("ssh: a session could not be started")
            self.hang_up()

    async def _run(self, channel: Any, state: ChannelState) -> None:
        identity = self.identity
        # Asked anew: the key may have been revoked, or the user's rights changed, since the connection began.
        found = identity and await self._doors.authenticate(identity.key_type, identity.blob)
        if not found:
            self.hang_up()
            return
        ends = Ends(state.terminal)
        session = Session(*found, state.command or "", *ends.theirs, state.terminal, state.git_protocol)
        state.session = session
        state.pump = pump = Pump(channel, ends, leaver(self._loop, session))
        pump.start()
        status = 1
        try:
            status = await self._handler.handle(session)
        finally:
            pump.finish(status)
            await asyncio.shield(asyncio.to_thread(pump.join, 10))

    def _tell_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon is gone
            self._loop.call_soon_threadsafe(function, *arguments)
