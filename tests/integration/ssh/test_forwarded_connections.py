"""`ssh -L` through the embedded server, to what the doors open and nowhere else."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from conftest import Client, Doors, eventually

from paasd.config import SshConfig
from paasd.push import ssh_connection, ssh_forward
from paasd.push.ssh import EmbeddedSsh
from paasd.push.ssh_channel import Wake
from paasd.push.ssh_connection import MAX_FORWARDS
from paasd.push.ssh_forward import _SocketEnds


@pytest.fixture
def config() -> SshConfig:
    return SshConfig(port=0, address="127.0.0.1", forward_idle=2.0)


@pytest.fixture
async def echo(doors: Doors) -> AsyncIterator[asyncio.Server]:
    """Says back what it hears, and `bye` once the other side has said all."""

    answering: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
            await writer.drain()
        except ConnectionError:
            pass
        await close(writer)
        answering.discard(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    doors.echo = server.sockets[0].getsockname()
    yield server
    server.close()
    await eventually(lambda: not answering)


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


async def test_one_whose_client_stops_reading_is_closed_too(forwarding: Path, doors: Doors) -> None:
    _, writer = await asyncio.open_unix_connection(str(forwarding))
    writer.write(bytes(32 * 1024**2))  # more than fits between here and there; all of it comes back
    await eventually(lambda: doors.forwards == 1)
    await eventually(lambda: not pumps() and not doors.forwards)
    writer.transport.abort()
    await close(writer)


async def test_places_come_back_when_no_pump_can_be_made(
    embedded_client: Client, echo: asyncio.Server, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_forward, "MAX_PER_KEY", 1)

    def no_descriptors(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    for place, name in ((Wake, "__init__"), (_SocketEnds, "__init__"), (threading.Thread, "start")):
        with monkeypatch.context() as broken:
            doors.forwarding = partial(broken.setattr, place, name, no_descriptors)
            assert await echoed(embedded_client) != b"xbye"
        await eventually(lambda: not doors.forwards)
    doors.forwarding = lambda: None
    assert await echoed(embedded_client) == b"xbye"
    await eventually(lambda: not doors.forwards)


async def test_places_come_back_when_the_answer_comes_too_late(
    embedded_client: Client, echo: asyncio.Server, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_forward, "MAX_PER_KEY", 1)
    with monkeypatch.context() as impatient:
        impatient.setattr(ssh_connection, "_FORWARD_TIMEOUT", 0.2)
        doors.forwarding = partial(time.sleep, 1)
        assert await echoed(embedded_client) == b""
    doors.forwarding = lambda: None
    assert not doors.forwards
    assert await echoed(embedded_client) == b"xbye"
    await eventually(lambda: not doors.forwards)


async def test_places_come_back_when_the_client_leaves_meanwhile(
    embedded_client: Client, echo: asyncio.Server, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_forward, "MAX_PER_KEY", 1)
    process = subprocess.Popen(through(embedded_client), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def leave() -> None:
        process.kill()
        time.sleep(0.5)

    doors.forwarding = leave
    await asyncio.to_thread(process.communicate, timeout=30)
    doors.forwarding = lambda: None
    await eventually(lambda: not doors.forwards)
    assert await echoed(embedded_client) == b"xbye"
    await eventually(lambda: not doors.forwards)


def through(client: Client) -> list[str]:
    return client.argv(options=["-W", "echo:7"])


async def echoed(client: Client) -> bytes:
    """What a new client gets for an x."""
    run = partial(subprocess.run, through(client), input=b"x", stdout=subprocess.PIPE, timeout=30, check=False)
    return (await asyncio.to_thread(run)).stdout


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
