"""One `exec` channel of the embedded SSH server: joins the channel to a session's file descriptors in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import select
import struct
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any, Protocol

from paasd.push.session import Session, Terminal

log = logging.getLogger(__name__)
CHUNK = 64 * 1024
_MAX_PENDING = 256 * 1024


class Wake:
    """An event that poll() can wait for; stands in for the threading.Event that paramiko sets when data arrives."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Nothing: only `reset` clears, or a wake-up could get lost between two looks."""

    def reset(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        with self._lock:
            os.close(self.fd)
            self.fd = -1


class JoinedEnds(Protocol):
    """The descriptors that a pump joins to a channel, all non-blocking; it closes them."""

    @property
    def input(self) -> int | None: ...

    @property
    def terminal(self) -> bool: ...

    def outputs(self, channel: Any) -> dict[int, Callable[[bytes], int]]: ...


class Pump(threading.Thread):
    """Moves bytes between a channel and its descriptors until the session's side has closed its outputs and `finish`
    told the exit status. Nothing here waits for one direction while the other could move."""

    def __init__(self, channel: Any, session_end: JoinedEnds, leave: Callable[[], None]) -> None:
        super().__init__(name="ssh-channel", daemon=True)
        self._channel = channel
        self._input: int | None = session_end.input
        self._outputs = dict(session_end.outputs(channel))
        self._terminal = session_end.terminal
        self._leave = leave
        self._left = False
        self._eof_sent = False
        self._pending = b""
        self._status: int | None = None
        self._finished = False
        self._patience = 60_000
        self.wake = Wake()
        channel.settimeout(0.0)
        channel.in_buffer.set_event(self.wake)

    def finish(self, status: int) -> None:
        self._status = status
        self._finished = True
        self.wake.set()

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal and not self._left and self._input is not None:
            set_window(self._input, columns, rows)

    def run(self) -> None:
        try:
            while self._outputs or not self._finished:
                self._turn()
            self._say_goodbye()
        except Exception:
            log.exception("an SSH channel broke")
        finally:
            self._depart()
            self._channel.in_buffer.set_event(threading.Event())
            for fd in {self._input, *self._outputs} - {None}:
                os.close(fd)  # type: ignore[arg-type]
            with contextlib.suppress(Exception):
                self._channel.close()
            self.wake.close()

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self.wake.fd, select.POLLIN)
        interest = dict.fromkeys(self._outputs, select.POLLIN) if self._can_send() else {}
        if self._input is not None and self._pending:
            interest[self._input] = interest.get(self._input, 0) | select.POLLOUT
        for fd, events in interest.items():
            poll.register(fd, events)
        ready = dict(poll.poll(self._patience))
        if ready.pop(self.wake.fd, None):
            self.wake.reset()
        if self._channel.closed or not self._channel.transport.is_active():
            self._depart()
        self._take_input()
        for fd, events in ready.items():
            if fd in self._outputs and events & ~select.POLLOUT:
                self._give_output(fd)
        self._waited()

    def _waited(self) -> None:
        """Called after every wait, be it in vain."""

    def _can_send(self) -> bool:
        return self._left or bool(self._channel.send_ready())

    def _take_input(self) -> None:
        """From the channel to the session. Data is only taken from the channel when the session keeps up: that is what
        holds the client back."""
        while True:
            if self._pending and not self._write_pending():
                return
            if len(self._pending) >= _MAX_PENDING:
                return
            try:
                data = self._channel.recv(CHUNK)
            except (TimeoutError, EOFError, OSError):
                return
            if not data:
                self._end_input()
                return
            self._pending = data
            if self._terminal and b"\x03" in data and self._interrupts():
                self._leave()

    def _write_pending(self) -> bool:
        if self._input is None:
            self._pending = b""
            return True
        try:
            self._pending = self._pending[os.write(self._input, self._pending) :]
        except BlockingIOError:
            return False
        except OSError:
            self._pending = b""
        return not self._pending

    def _end_input(self) -> None:
        if self._input is None:
            return
        if self._terminal:
            # A terminal has one descriptor for both directions: end the input as a user does, with Ctrl-D.
            if not self._eof_sent and self._flag(termios.ICANON):
                with contextlib.suppress(OSError):
                    os.write(self._input, b"\x04")
            self._eof_sent = True
            return
        os.close(self._input)
        self._input = None

    def _interrupts(self) -> bool:
        return self._flag(termios.ISIG)

    def _flag(self, flag: int) -> bool:
        assert self._input is not None
        try:
            return bool(termios.tcgetattr(self._input)[tty.LFLAG] & flag)
        except termios.error:
            return False

    def _give_output(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last slave of a terminal was closed
            data = b""
        if not data:
            del self._outputs[fd]
            if fd != self._input:
                os.close(fd)
            return
        self._send(fd, data)

    def _send(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._left:
            try:
                sent = self._outputs[fd](bytes(rest))
            except TimeoutError:
                self._wait_for_window()
                continue
            except Exception:  # paramiko raises many kinds when a connection dies
                sent = 0
            if not sent:
                self._depart()
            rest = rest[sent:]

    def _wait_for_window(self) -> None:
        """The window is full: keep the input moving meanwhile, or two full directions would wait for each other."""
        poll = select.poll()
        poll.register(self.wake.fd, select.POLLIN)
        if self._input is not None and self._pending:
            poll.register(self._input, select.POLLOUT)
        poll.poll(self._patience)
        self.wake.reset()
        if self._channel.closed or not self._channel.transport.is_active():
            self._depart()
        self._take_input()
        self._waited()

    def _depart(self) -> None:
        """The client is gone: close the input, throw away output until the session ends."""
        if self._left:
            return
        self._left = True
        self._pending = b""
        if self._terminal:
            # Hang up: closing the master ends reads and writes on the session's side.
            for fd in {self._input, *self._outputs} - {None}:
                os.close(fd)  # type: ignore[arg-type]
            self._outputs.clear()
            self._input = None
        else:
            self._end_input()
        self._leave()

    def _say_goodbye(self) -> None:
        if not self._left and self._status is not None:
            with contextlib.suppress(Exception):
                self._channel.send_exit_status(self._status & 0xFF)
        self._left = True


class Ends:
    """The transport's ends of a session's descriptors: three pipes, or one pseudo terminal."""

    def __init__(self, terminal: Terminal | None) -> None:
        self.terminal = terminal is not None
        if terminal:
            self.input, slave = os.openpty()
            set_window(self.input, terminal.columns, terminal.rows)
            self.theirs = (slave, os.dup(slave), os.dup(slave))
            self._sources = [self.input]
        else:
            stdin, self.input = os.pipe()
            out, stdout = os.pipe()
            err, stderr = os.pipe()
            self.theirs = (stdin, stdout, stderr)
            self._sources = [out, err]
        for fd in {self.input, *self._sources}:
            os.set_blocking(fd, False)

    def outputs(self, channel: Any) -> dict[int, Callable[[bytes], int]]:
        return dict(zip(self._sources, (channel.send, channel.send_stderr), strict=False))


def set_window(fd: int, columns: int, rows: int) -> None:
    size = struct.pack("HHHH", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, size)


def leaver(loop: asyncio.AbstractEventLoop, session: Session) -> Callable[[], None]:
    """`session.leave` for other threads; nothing once the loop is closed."""

    def leave() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(session.leave)

    return leave
