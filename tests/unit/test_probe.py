"""What one question to an instance sees, of servers good and bad."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from paasd.checks import Check
from paasd.run import plain_http
from paasd.run.instances import InstanceRow
from paasd.run.probe import Answer, Probe
from tests.fakes import FakeDriver

ROW = InstanceRow("one", "a", "p", "r", None, "web", 1, "127.0.0.1", "live", None)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """Ends when every connection has."""
    open_: set[asyncio.StreamWriter] = set()

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        open_.discard(writer)

    served = await asyncio.start_server(whole, "127.0.0.1", 0)
    async with served:
        yield served.sockets[0].getsockname()[1]
    await asyncio.gather(*(writer.wait_closed() for writer in open_), return_exceptions=True)


def saying(*pieces: bytes, asked: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    return serve


async def probed(check: Check) -> Answer:
    probe = Probe(FakeDriver())
    try:
        return await probe(ROW, check, "blog.example")
    finally:
        await probe.close()


@pytest.mark.parametrize("content", [None, "hello"])
@pytest.mark.parametrize(
    ("pieces", "ok", "seen"),
    [
        ([OK], True, "GET /up answered 200"),
        ([OK[:7], OK[7:40], OK[40:]], True, "answered 200"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello"], True, "answered 200"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], True, "answered 200"),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK], True, "answered 200"),
        ([b"HTTP/1.1 103 Early Hints\r\nLi", b"nk: </a>\r\n\r\n", OK], True, "answered 200"),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], False, "answered 503, expected 200 to 399"),
        ([b"SSH-2.0-OpenSSH\r\n"], False, "GET /up: "),
        ([], False, "GET /up: "),
    ],
)
async def test_what_a_server_says(pieces: list[bytes], ok: bool, seen: str, content: str | None) -> None:
    async with server(saying(*pieces)) as port:
        answer = await probed(Check(path="/up", port=port, content=content))
    assert answer.ok is ok and seen in answer.seen and answer.seconds > 0


@pytest.mark.parametrize(("status", "ok"), [(("204",), False), (("200",), True), (("5xx", "2xx"), True)])
@pytest.mark.parametrize("content", [None, "hello"])
async def test_the_status_that_was_said_is_expected(status: tuple[str, ...], ok: bool, content: str | None) -> None:
    async with server(saying(OK)) as port:
        answer = await probed(Check(path="/up", port=port, content=content, statuses=status))
    assert (answer.ok, answer.seen) == (ok, "GET /up answered 200" + ("" if ok else ", expected 204"))


async def test_the_request_has_host_and_headers() -> None:
    asked: list[bytes] = []
    async with server(saying(OK, asked=asked)) as port:
        check = Check(path="/ü?a=1", port=port, headers=(("X-Check", "yes"),))
        assert (await probed(check)).ok
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == "GET /%C3%BC?a=1 HTTP/1.1"
    assert {"Host: blog.example", "X-Check: yes", "Connection: close"} <= set(lines)


async def test_any_answer_will_do_when_no_path_is_given() -> None:
    async with server(saying(b"HTTP/1.1 500 Oops\r\n\r\n")) as port:
        assert (await probed(Check(answer=True, port=port))).ok


@pytest.mark.parametrize("check", [Check(path="/"), Check(path="/", content="x"), Check(listening=True)])
async def test_a_closed_port_is_silence(check: Check) -> None:
    async with server(saying(OK)) as port:
        pass
    answer = await probed(Check(**{**vars(check), "port": port}))
    assert not answer.ok and answer.silent and "refused" in answer.seen


async def test_an_answer_arrives_whole_though_its_status_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that never ends is left, without keeping whoever asked."""
    whole, left = asyncio.Event(), asyncio.Event()

    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-5])
        await writer.drain()
        await asyncio.sleep(0.08)
        writer.write(bytes(2 * 1024**2))
        await writer.drain()
        whole.set()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        try:
            while True:
                writer.write(bytes(64 * 1024))
                await writer.drain()
        finally:
            left.set()

    probe = Probe(FakeDriver())
    async with server(long) as one, server(endless) as other, asyncio.timeout(10):
        assert (await probe(ROW, Check(path="/", port=other), "blog.example")).ok
        await left.wait()
        monkeypatch.setattr(plain_http, "_REST", 60.0)  # for slow machines
        assert (await probe(ROW, Check(path="/", port=one), "blog.example")).ok
        await whole.wait()
        await probe.close()


async def test_a_server_that_never_answers_is_left_after_the_timeout() -> None:
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with server(hang) as port:
        answer = await probed(Check(path="/", port=port, timeout=0.2))
        assert (answer.ok, answer.silent, answer.seen) == (False, True, "GET / gave no answer in 0.2 s")
        assert (await probed(Check(listening=True, port=port))).ok
        async with asyncio.timeout(5):
            await ended.wait()


@pytest.mark.parametrize("content", [None, "hello"])
async def test_https_takes_any_certificate(tmp_path: Path, content: str | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    served = await asyncio.start_server(saying(OK), "127.0.0.1", 0, ssl=context)
    async with served:
        port = served.sockets[0].getsockname()[1]
        answer = await probed(Check(path="/up", scheme="https", port=port, content=content))
    assert answer.ok, answer


def self_signed(folder: Path) -> Path:
    """A key and a certificate that nobody trusts, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(today).not_valid_after(today + timedelta(days=1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "pair.pem"
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path
