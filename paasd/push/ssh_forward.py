"""One forwarded connection of the embedded SSH server: joins a channel to a socket in one thread."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from paasd.errors import TooMany
from paasd.push.ssh_channel import Pump

MAX_PER_KEY = 64


class Places:
    """How many connections a key has forwarded. On the loop only."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def take(self, key_id: str) -> None:
        """Raises TooMany."""
        if self._taken[key_id] >= MAX_PER_KEY:
            raise TooMany(f"this key has {MAX_PER_KEY} forwarded connections open already")
        self._taken[key_id] += 1

    def give_back(self, key_id: str) -> None:
        self._taken[key_id] -= 1
        if self._taken[key_id] <= 0:
            del self._taken[key_id]


class _SocketEnds:
    """What `Pump` wants of a session's descriptors."""

    terminal = False

    def __init__(self, connection: socket.socket) -> None:
        self.input: int | None = os.dup(connection.fileno())
        self._output = connection.detach()

    def outputs(self, channel: Any) -> dict[int, Callable[[bytes], int]]:
        return {self._output: channel.send}

    def close(self) -> None:
        for fd in {self.input, self._output} - {None}:
            os.close(fd)  # type: ignore[arg-type]


class ForwardPump(Pump):
    """Ends when the app has closed its side, the client is gone, or nothing has moved for `idle` seconds."""

    def __init__(self, channel: Any, connection: socket.socket, idle: float, ended: Callable[[], None]) -> None:
        ends = _SocketEnds(connection)
        try:
            super().__init__(channel, ends, lambda: None)
        except BaseException:
            ends.close()
            raise
        self._outputs = dict.fromkeys(self._outputs, self._sent)
        self._finished = True  # there is no exit status to wait for
        self._idle = idle
        self._moved = time.monotonic()
        self._patience = max(100, min(self._patience, round(idle * 1000)))
        self._ended = ended

    def start(self) -> None:
        try:
            super().start()
        except BaseException:  # no thread to be had
            for fd in {self._input, *self._outputs} - {None}:
                os.close(fd)  # type: ignore[arg-type]
            self.wake.close()
            raise

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._ended()

    def _waited(self) -> None:
        if time.monotonic() - self._moved > self._idle:
            self._depart()

    def _write_pending(self) -> bool:
        before = len(self._pending)
        done = super()._write_pending()
        if len(self._pending) < before:
            self._moved = time.monotonic()
        return done

    def _sent(self, data: bytes) -> int:
        """Raises TimeoutError for a full window."""
        sent = int(self._channel.send(data))
        self._moved = time.monotonic()
        return sent

    def _end_input(self) -> None:
        """The client has said all; the app may go on answering."""
        if self._input is not None:
            _shut(self._input, socket.SHUT_WR)
        super()._end_input()

    def _depart(self) -> None:
        if not self._left:
            for fd in self._outputs:
                _shut(fd, socket.SHUT_RDWR)
        super()._depart()


def _shut(fd: int, how: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        connection.shutdown(how)
