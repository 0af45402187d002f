"""What the engine asks over a session, asked here by a real client of HTTP/2 on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived

from paasd.build import grpc_server
from paasd.build.session import Session, config_var
from paasd.build.trace import fields
from paasd.models import Secret

GET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


@dataclass
class Answer:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def status(self) -> bytes:
        return self.headers[b"grpc-status"]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.connection = H2Connection(H2Configuration(client_side=True))
        self.connection.initiate_connection()

    async def call(self, path: str, message: bytes, *, prefix: bytes | None = None) -> Answer:
        stream = self.connection.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path), ("te", "trailers")]
        self.connection.send_headers(stream, head)
        data = (b"\0" + len(message).to_bytes(4) if prefix is None else prefix) + message
        while data:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            self.connection.send_data(stream, data[:room])
            data = data[room:]
            if room == 0:
                await self._turn()
        self.connection.end_stream(stream)
        answer = Answer()
        while not await self._turn(stream, answer):
            pass
        return answer

    async def _turn(self, stream: int = 0, answer: Answer | None = None) -> bool:
        self.writer.write(self.connection.data_to_send())
        await self.writer.drain()
        ended = False
        for event in self.connection.receive_data(await self.reader.read(65536)):
            if answer is None or getattr(event, "stream_id", None) != stream:
                continue
            if isinstance(event, ResponseReceived | TrailersReceived):
                answer.headers |= dict(event.headers)
            elif isinstance(event, DataReceived):
                answer.body += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
            ended = ended or isinstance(event, StreamEnded)
        return ended


@pytest.fixture
def session() -> Session:
    return Session({"TOKEN": Secret("s3cret"), "LONG": Secret("é" * 150_000), "EMPTY": Secret("")})


@pytest.fixture
async def client(session: Session) -> AsyncIterator[Client]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    serving = asyncio.create_task(grpc_server.serve(reader, writer, {GET: session.answer}))
    client = Client(*await asyncio.open_connection(sock=theirs))
    async with asyncio.timeout(20):
        yield client
        client.writer.close()
        await serving  # ends by itself once the other side is gone
    writer.close()


def asked(name: str) -> bytes:
    return b"\x0a" + bytes([len(name)]) + name.encode()


def value(answer: Answer) -> str:
    assert answer.status == b"0", answer
    assert answer.body[0] == 0 and int.from_bytes(answer.body[1:5]) == len(answer.body) - 5
    data = dict(fields(answer.body[5:]))[1]
    assert isinstance(data, bytes)
    return data.decode()


async def test_secrets_by_their_name_and_as_config_vars_are_written(client: Client) -> None:
    assert value(await client.call(GET, asked("TOKEN"))) == "s3cret"
    assert value(await client.call(GET, asked("token"))) == "s3cret"
    assert value(await client.call(GET, asked("EMPTY"))) == ""
    assert [config_var(name) for name in ("npm-token", "A", "1st", "")] == ["NPM_TOKEN", "A", "_1ST", "_"]


async def test_an_answer_longer_than_the_window(client: Client) -> None:
    assert value(await client.call(GET, asked("LONG"))) == "é" * 150_000
    assert value(await client.call(GET, asked("TOKEN"))) == "s3cret"


async def test_what_is_missing_is_remembered(client: Client, session: Session) -> None:
    answer = await client.call(GET, asked("sentry.token"))
    assert answer.status == b"5" and answer.headers[b"grpc-message"].startswith(b"the build does not see")
    await client.call(GET, asked("sentry.token"))
    assert list(session.missing) == ["SENTRY_TOKEN"]


async def test_calls_that_make_no_sense_are_refused_and_the_next_is_answered(client: Client) -> None:
    assert (await client.call("/moby.filesync.v1.Auth/Credentials", b"")).status == b"12"
    assert (await client.call(GET, b"\xff")).status == b"13"
    assert (await client.call(GET, asked("TOKEN"), prefix=b"\1\0\0\0\7")).status == b"13"
    assert (await client.call(GET, b"", prefix=b"\0")).status == b"13"
    assert (await client.call(GET, b"x" * (grpc_server.MAX_REQUEST + 1))).status == b"8"
    assert value(await client.call(GET, asked("TOKEN"))) == "s3cret"


async def test_what_is_not_http_2_ends_the_connection(client: Client) -> None:
    client.writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
    await client.writer.drain()


def test_the_fingerprint_changes_with_names_and_values_and_tells_nothing(session: Session) -> None:
    known = {Session({name: Secret(text)}).fingerprint for name, text in (("A", "x"), ("A", "y"), ("B", "x"))}
    assert len(known) == 3
    assert Session({"A": Secret("x")}).fingerprint in known
    assert "s3cret" not in session.fingerprint + repr(session)
