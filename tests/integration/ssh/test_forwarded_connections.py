"""`ssh -L` through the embedded server, to what the doors open and nowhere else."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Client, Doors, eventually

from paasd.config import SshConfig
from paasd.push.ssh import EmbeddedSsh
from paasd.push.ssh_connection import MAX_FORWARDS


@pytest.fixture
def config() -> SshConfig:
    return SshConfig(port=0, address="127.0.0.1", forward_idle=2.0)


@pytest.fixture
async def echo(doors: Doors) -> AsyncIterator[asyncio.Server]:
    """Says back what it hears, and `bye` once the other side has said all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
            await writer.drain()
        except ConnectionError:
            pass
        await close(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    doors.echo = server.sockets[0].getsockname()
    yield server
    server.close()


@pytest.fixture
async def forwarding(embedded_client: Client, echo: asyncio.Server) -> AsyncIterator[Path]:
    path = embedded_client.home / "forward"
    command = embedded_client.argv(options=["-N", "-L", f"{path}:echo:7", "-o", "ExitOnForwardFailure=yes"])
    process = await asyncio.create_subprocess_exec(*command)
    await eventually(path.exists)
    yield path
    if process.returncode is None:
        process.kill()
    await process.wait()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Nothing comes any more."""
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 20) == b""
    return True


def pumps() -> int:
    return sum(thread.name == "ssh-channel" for thread in threading.enumerate())


async def test_bytes_go_both_ways_and_each_side_ends_by_itself(forwarding: Path) -> None:
    data = os.urandom(3 * 1024**2)
    reader, writer = await asyncio.open_unix_connection(str(forwarding))

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    assert await asyncio.wait_for(reader.readexactly(len(data) + 3), 30) == data + b"bye"
    await sending
    await close(writer)
    await eventually(lambda: not pumps())


async def test_a_quiet_one_is_closed_and_one_that_moves_is_not(forwarding: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(forwarding))
    for _ in range(6):
        writer.write(b"x")
        assert await asyncio.wait_for(reader.readexactly(1), 10) == b"x"
        await asyncio.sleep(0.5)
    assert await asyncio.wait_for(reader.read(), 20) in (b"", b"bye")
    await close(writer)
    await eventually(lambda: not pumps())


async def test_there_are_only_so_many_and_places_come_back(forwarding: Path) -> None:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(forwarding))
        writer.write(b"x")
        return reader, writer

    for _ in range(2):
        open_ones = [await connect() for _ in range(MAX_FORWARDS)]
        for reader, _ in open_ones:
            assert await asyncio.wait_for(reader.readexactly(1), 20) == b"x"
        reader, writer = await connect()
        assert await ended(reader), "one too many"
        for _, opened in [*open_ones, (reader, writer)]:
            await close(opened)
        await eventually(lambda: not pumps())


async def test_a_revoked_key_ends_what_it_forwards(forwarding: Path, embedded: EmbeddedSsh) -> None:
    reader, writer = await asyncio.open_unix_connection(str(forwarding))
    writer.write(b"x")
    assert await asyncio.wait_for(reader.readexactly(1), 20) == b"x"
    await embedded.disconnect_key("key-alice")
    assert await ended(reader)
    await close(writer)
    await eventually(lambda: not pumps())


@pytest.mark.parametrize("target", ["echo:8", "127.0.0.1:22", "169.254.169.254:80", "[::1]:22", "localhost:7"])
async def test_everything_else_is_refused_in_words(embedded_client: Client, echo: asyncio.Server, target: str) -> None:
    command = [word.replace("=ERROR", "=INFO") for word in embedded_client.argv(options=["-W", target])]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 255
    assert b"administratively prohibited: no app" in errors, errors
