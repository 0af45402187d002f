"""The status of a GET, for checks that want no more: cheaper than a whole HTTP client, which counts when hundreds of
instances are asked every few seconds. Owns the connections whose answers still come."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import socket
import time
from collections.abc import Mapping
from urllib.parse import quote

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")
_LONGEST = 8192
_PIECE, _PIECES = 65536, 16
_KEPT = "/?&=%:@!$'()*+,;~[]-._"
_REST, _LOOK = 0.2, 0.05
"""Seconds for the rest of an answer, and between two looks at what came of it."""


class NoHttp(Exception):
    """What answered does not speak HTTP; says what came."""


class PlainHttp:
    """An answer may arrive after its status is known: an app should not see its visitor leave in the middle. Those of
    many are looked at together, since waking up for each costs more than asking. Endless ones are left."""

    def __init__(self) -> None:
        self._arriving: dict[socket.socket, float] = {}
        """Connections that are waited for, and until when."""
        self._timer: asyncio.TimerHandle | None = None

    async def status_of(self, address: str, port: int, path: str, headers: Mapping[str, str]) -> int:
        """Raises OSError or NoHttp. The caller bounds the time."""
        connection = socket.socket()
        try:
            connection.setblocking(False)
            # A network on this machine has answered by the time the call returns, so sending is tried at once; when it
            # has not, or refuses, sending waits or fails.
            if (code := connection.connect_ex((address, port))) not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            await asyncio.get_running_loop().sock_sendall(connection, _request(path, tuple(headers.items())))
            status = await _status(connection)
        except BaseException:
            connection.close()
            raise
        self._let_arrive(connection)
        return status

    def close(self) -> None:
        """Leaves whatever still comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in self._arriving:
            connection.close()
        self._arriving.clear()

    def _let_arrive(self, connection: socket.socket) -> None:
        if _over(connection):
            connection.close()
            return
        self._arriving[connection] = time.monotonic() + _REST
        self._look_later()

    def _look_later(self) -> None:
        if self._timer is None and self._arriving:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for connection in [each for each, until in self._arriving.items() if now >= until or _over(each)]:
            del self._arriving[connection]
            connection.close()
        self._look_later()


@functools.lru_cache(maxsize=1024)
def _request(path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"GET {quote(path, safe=_KEPT)} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


async def _status(connection: socket.socket) -> int:
    loop, answer = asyncio.get_running_loop(), b""
    while not _is_final(answer) and len(answer) < _LONGEST and (piece := await loop.sock_recv(connection, 4096)):
        answer += piece
        while not _is_final(answer) and b"\r\n\r\n" in answer:
            answer = answer.partition(b"\r\n\r\n")[2]
    found = _STATUS_LINE.match(answer)
    if found is None:
        raise NoHttp(f"not HTTP: {answer[:40].decode(errors='replace')!a}" if answer else "closed unanswered")
    return int(found[1])


def _is_final(answer: bytes) -> bool:
    """Whether there is a status line that is no interim one (RFC 9110, section 15.2)."""
    found = _STATUS_LINE.match(answer)
    return b"\r\n" in answer and not (found and found[1].startswith(b"1") and found[1] != b"101")


def _over(connection: socket.socket) -> bool:
    """Reads what has come, of endless ones a part; True when nothing more will."""
    try:
        for _ in range(_PIECES):
            if not connection.recv(_PIECE):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False
