"""A conversation with a command that the daemon runs: both streams, the terminal's size, the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from paasd.cli.client import PREFIX, Client, DaemonUnavailable
from paasd.cli.console import Console
from paasd.cli.framework import Cli
from paasd.errors import from_problem

_RESIZE_POLL = 0.5


def talk(
    cli: Cli,
    path: str,
    command: Sequence[str],
    query: Mapping[str, Any] | None = None,
    begin: Mapping[str, Any] | None = None,
) -> int:
    """Run `command` there and return its exit status; interactive on a terminal."""
    size = cli.console.size() if cli.console.size and os.isatty(cli.console.stdin) else None
    values = {"command": json.dumps(list(command)), **(query or {})}
    if begin:
        values["begin"] = 1
    if size:
        values |= {"columns": size[0], "rows": size[1]}
    url = f"{path}?{urlencode({key: value for key, value in values.items() if value is not None})}"
    with _raw_terminal(cli.console) if size else contextlib.nullcontext():
        return asyncio.run(_converse(cli.client, cli.console, url, begin or {}))


async def _converse(client: Client, console: Console, url: str, begin: Mapping[str, Any]) -> int:
    """Copy both ways until the command ends; its exit status."""
    import aiohttp

    connector = aiohttp.UnixConnector(str(client.path))
    async with aiohttp.ClientSession(connector=connector, headers=dict(client.headers)) as session:
        try:
            socket = await session.ws_connect(f"http://paasd{PREFIX}{url}", max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            # The reason is in the body of an ordinary request to the same path.
            raise await _refusal(session, url, error) from None
        except aiohttp.ClientConnectorError:
            raise DaemonUnavailable(f"paasd is not running (nothing answers at {client.path})") from None
        async with socket:
            if begin:
                await socket.send_json({"begin": begin})
            async with _InputReader(console, socket, asyncio.get_running_loop()):
                return await _print_output(console, socket)


async def _print_output(console: Console, socket: Any) -> int:
    import aiohttp

    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            await asyncio.to_thread(console.raw, message.data[1:], stderr=message.data[0] == 2)
        elif message.type is aiohttp.WSMsgType.TEXT:
            control = json.loads(message.data)
            if "exit" in control:
                return int(control["exit"])
            raise from_problem(control["error"])
    raise DaemonUnavailable("paasd stopped before the command ended")


async def _refusal(session: Any, url: str, error: Exception) -> Exception:
    async with session.get(f"http://paasd{PREFIX}{url}") as response:
        try:
            return from_problem(json.loads(await response.text()))
        except json.JSONDecodeError:
            return DaemonUnavailable(f"paasd refused the connection: {error}")


class _InputReader:
    """Hands standard input to the socket from a thread, since it may be a file, a pipe or a terminal."""

    def __init__(self, console: Console, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._console = console
        self._socket = socket
        self._loop = loop
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._read, name="run input", daemon=True)

    async def __aenter__(self) -> None:
        self._thread.start()

    async def __aexit__(self, *exc: object) -> None:
        os.close(self._wake_write)
        await asyncio.to_thread(self._thread.join)
        os.close(self._wake_read)

    def _read(self) -> None:
        size = self._console.size() if self._console.size else None
        while True:
            ready, _, _ = select.select([self._console.stdin, self._wake_read], [], [], _RESIZE_POLL)
            if self._wake_read in ready:
                return
            if size and self._console.size and (now := self._console.size()) != size:
                size = now
                self._submit(self._socket.send_json({"resize": list(size)}))
            if ready:
                data = _read_some(self._console.stdin)
                if not data:
                    self._submit(self._socket.send_json({"eof": True}))
                    return
                self._submit(self._socket.send_bytes(data))

    def _submit(self, work: Any) -> None:
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 16 * 1024)
    except OSError:
        return b""  # the terminal hung up


@contextlib.contextmanager
def _raw_terminal(console: Console) -> Iterator[None]:
    """Every key goes to the command, Ctrl-C included."""
    before = termios.tcgetattr(console.stdin)
    tty.setraw(console.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(console.stdin, termios.TCSADRAIN, before)
