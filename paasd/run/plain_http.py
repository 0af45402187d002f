"""The status of a GET, for checks that want no more: cheaper than a whole HTTP client, which counts when hundreds of
instances are asked every few seconds."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import quote

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")
_LONGEST = 8192
_KEPT = "/?&=%:@!$'()*+,;~[]-._"
_REST = 0.2
"""Seconds for the rest of the answer."""


class NoHttp(Exception):
    """What answered does not speak HTTP; says what came."""


async def status_of(address: str, port: int, path: str, headers: Mapping[str, str]) -> int:
    """Raises OSError or NoHttp. The caller bounds the time."""
    lines = [
        f"GET {quote(path, safe=_KEPT)} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close",
    ]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        # A network on this machine has answered by the time the call returns, so sending is tried at once; when it has
        # not, or refuses, sending waits or fails.
        if (code := connection.connect_ex((address, port))) not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        await loop.sock_sendall(connection, request)
        answer = b""
        while b"\r\n" not in answer and len(answer) < _LONGEST and (piece := await loop.sock_recv(connection, 4096)):
            answer += piece
            if (found := _STATUS_LINE.match(answer)) and found[1] == b"100":
                answer = answer.partition(b"\r\n\r\n")[2]
        found = _STATUS_LINE.match(answer)
        if found is None:
            raise NoHttp(f"not HTTP: {answer[:40].decode(errors='replace')!a}" if answer else "closed unanswered")
        await _rest(loop, connection)
        return int(found[1])


async def _rest(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    """Let the answer arrive: an app should not see its visitor leave in the middle. Endless ones are left."""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(_REST):
            while await loop.sock_recv(connection, 65536):
                pass
