"""Requests that another service lets in or answers."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from aiohttp import web

from paasd.edge_values import Endpoint, Route, Site
from paasd.route.edge import Edge
from tests.integration.edge.conftest import TEMPLATES, Bench
from tests.integration.edge.policies import set_policy
from tests.ports import free_port
from tests.tls import Authority

CHECK = {"auth.forward": "http://auth.test/check?for=blog", "auth.forward-headers": "Remote-User Remote-Groups"}


@dataclass
class Service:
    """Answers as it is told to, and keeps what it was asked."""

    answer: Callable[[], web.Response] = lambda: web.Response(headers={"Remote-User": "alice"})
    asked: list[web.Request] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return self.answer()


async def inside(request: web.Request) -> web.StreamResponse:
    names = ("Remote-User", "Remote-Groups", "Cookie")
    return web.Response(text=json.dumps({name: request.headers.getall(name, []) for name in names}))


async def guarded(bench: Bench, service: Service, **more: str) -> str:
    await bench.serve("auth", await bench.apps.start(service.handle))
    host = await bench.serve("blog", await bench.apps.start(inside))
    await set_policy(bench, "blog", **{**CHECK, **more})
    return host


async def test_the_app_is_told_what_the_service_says_and_nothing_else(bench: Bench) -> None:
    service = Service()
    host = await guarded(bench, service)
    spoofed = {"Remote-User": "root", "remote-groups": "admins", "Cookie": "a=b", "X-Forwarded-For": "192.0.2.1"}
    spoofed |= {
        "X-Forwarded-Method": "HEAD",
        "X-Forwarded-Uri": "/public",
        "X-Original-URL": "http://x/",
        "Range": "bytes=0-1",
    }
    status, text = await bench.visitor.get(host, "/deep?x=%20y", **spoofed)
    assert status == 200
    assert json.loads(text) == {"Remote-User": ["alice"], "Remote-Groups": [], "Cookie": ["a=b"]}
    (asked,) = service.asked
    assert (asked.method, asked.path_qs, asked.host) == ("GET", "/check?for=blog", "auth.test")
    wanted = {
        "X-Forwarded-Method": ["GET"],
        "X-Forwarded-Proto": ["http"],
        "X-Forwarded-Host": [host],
        "X-Forwarded-Uri": ["/deep?x=%20y"],
        "X-Forwarded-For": ["127.0.0.1"],
        "X-Original-URL": [f"http://{host}/deep?x=%20y"],
        "Cookie": ["a=b"],
        "Range": [],
    }
    assert {name: asked.headers.getall(name, []) for name in wanted} == wanted


async def test_bodies_and_methods_reach_the_app_and_not_the_service(bench: Bench) -> None:
    service = Service()
    host = await guarded(bench, service)
    url = bench.visitor.url("/post")
    async with bench.visitor.session.post(url, headers={"Host": host}, data=b"x" * 200_000) as response:
        assert response.status == 200
    (asked,) = service.asked
    assert asked.headers["X-Forwarded-Method"] == "POST" and "Content-Length" not in asked.headers


def redirect() -> web.Response:
    answer = web.Response(status=302, text="over there", headers={"Location": "https://auth.test/login?rd=x"})
    answer.headers.add("Set-Cookie", "one=1")
    answer.headers.add("Set-Cookie", "two=2")
    answer.headers["X-Powered-By"] = "secret"
    return answer


async def test_what_it_refuses_is_answered_by_it(bench: Bench) -> None:
    service = Service(redirect)
    host = await guarded(bench, service)
    for headers in ({}, {"Accept": "text/event-stream"}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
        asked = bench.visitor.session.get(bench.visitor.url(), headers={"Host": host, **headers}, allow_redirects=False)
        async with asked as response:
            assert (response.status, await response.text()) == (302, "over there")
            assert response.headers["Location"] == "https://auth.test/login?rd=x"
            assert response.headers.getall("Set-Cookie") == ["one=1", "two=2"]
            assert "X-Powered-By" not in response.headers
    for status in (401, 403):
        service.answer = lambda status=status: web.Response(
            status=status, text="no", headers={"WWW-Authenticate": "Custom"}
        )
        assert await bench.visitor.get(host) == (status, "no")
        assert (await bench.visitor.get(host, "/.well-known/acme-challenge/token"))[0] == status


async def test_a_cookie_that_is_renewed_reaches_the_client(bench: Bench) -> None:
    service = Service(lambda: web.Response(headers={"Set-Cookie": "session=new"}))
    host = await guarded(bench, service)
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert response.status == 200 and response.headers.getall("Set-Cookie") == ["session=new"]


@pytest.mark.parametrize("status", [100, 304, 400, 404, 429, 500, 502])
async def test_any_other_answer_lets_nobody_in(bench: Bench, status: int) -> None:
    host = await guarded(bench, Service(lambda: web.Response(status=status)))
    status, text = await bench.visitor.get(host)
    assert status == 503 and "Remote-User" not in text


WRONG = {
    "nothing": b"",
    "garbage": b"\0\xff garbage\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "bad header": b"HTTP/1.1 200 OK\r\nRemote-User alice\r\n\r\n",
    "control": b"HTTP/1.1 200 OK\r\nRemote-User: a\rX-Evil: b\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nRemote-User: alice\r\n",
    "half a body": b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000,
    "endless body": b"HTTP/1.1 401 No\r\n\r\n" + b"x" * 200_000,
}


@pytest.mark.parametrize("kind", WRONG)
async def test_what_is_no_answer_lets_nobody_in(bench: Bench, kind: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(WRONG[kind])
            await writer.drain()
        except ConnectionError:
            pass

    host = await guarded(bench, Service())
    await bench.edge.set_route(Route("auth", (await bench.apps.raw(serve),), 1))
    status, text = await bench.visitor.get(host)
    assert status == 503 and "Remote-User" not in text
    assert "lua entry thread" not in bench.edge._nginx.layout.error_log.read_text()


async def test_chunks_are_put_together(bench: Bench) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (
            b"HTTP/1.1 403 No\r\nTransfer-",
            b"Encoding: chunked\r\n\r\n4\r\nno, ",
            b"\r\n3;x=y\r\nno!\r\n0\r\n\r\n",
        ):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    host = await guarded(bench, Service())
    await bench.edge.set_route(Route("auth", (await bench.apps.raw(serve),), 1))
    assert await bench.visitor.get(host) == (403, "no, no!")


async def test_a_service_that_is_slow_gone_or_asleep_lets_nobody_in(bench: Bench) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.2)
        except ConnectionError:
            pass

    host = await guarded(bench, Service())
    await bench.edge.set_route(Route("auth", (await bench.apps.raw(drip),), 1))
    begin = time.monotonic()
    assert (await bench.visitor.get(host))[0] == 503
    assert time.monotonic() - begin < 15
    await bench.edge.set_route(Route("auth", (Endpoint("127.0.0.1", free_port()),), 1))
    assert (await bench.visitor.get(host))[0] == 503
    await bench.edge.set_route(Route("auth", (), 1))
    assert (await bench.visitor.get(host))[0] == 503
    await bench.edge.set_route(Route("auth", (), 1, hold=20.0))
    assert (await bench.visitor.get(host))[0] == 503
    assert await bench.edge.wanted(10) == {"auth"}, "it is woken"


async def test_the_rules_of_a_service_cannot_be_passed_by(bench: Bench) -> None:
    """One that keeps addresses out is not asked at its instances."""
    service = Service()
    host = await guarded(bench, service)
    await set_policy(bench, "auth", deny="127.0.0.0/8")
    assert (await bench.visitor.get(host))[0] == 503
    assert service.asked == []


async def test_both_ways_together(bench: Bench) -> None:
    service = Service()
    host = await guarded(bench, service, **{"auth.basic": "alice:correct-horse"})
    assert (await bench.visitor.get(host))[0] == 401 and service.asked == []
    url = bench.visitor.url().replace("http://", "http://alice:correct-horse@")
    async with bench.visitor.session.get(url, headers={"Host": host}) as response:
        assert response.status == 200
    assert "Authorization" not in service.asked[0].headers


class Names(asyncio.DatagramProtocol):
    """A name server to which every name is 127.0.0.1."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        if query.question[0].rdtype == 1:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 1, "IN", "A", "127.0.0.1"))
        self.transport.sendto(answer.to_wire(), address)


@asynccontextmanager
async def over_https(service: Service, authority: Authority, name: str, directory: Path) -> AsyncIterator[int]:
    key, chain = authority.leaf((name,))
    (directory / f"{name}.pem").write_text(key + chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / f"{name}.pem")
    webapp = web.Application()
    webapp.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(webapp, shutdown_timeout=0.1)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        yield port
    finally:
        await runner.cleanup()


@pytest.fixture
async def trusting(bench: Bench) -> AsyncIterator[tuple[Bench, Authority]]:
    """An edge that knows the test's name server and authority."""
    authority = Authority.new()
    roots = bench.directory / "roots.pem"  # workers read it as another user
    roots.write_text(authority.pem)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        names = sock.getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Names, sock=sock)
        http = replace(
            bench.http,
            port=free_port(),
            https_port=0,
            resolvers=f"127.0.0.1:{names}",
            ca_bundle=str(roots),
        )
        edge = Edge(bench.directory / "trusting", TEMPLATES, http)
        try:
            await edge.start()
            yield replace(bench, edge=edge, http=http, visitor=replace(bench.visitor, port=http.port)), authority
        finally:
            await edge.stop()
            transport.close()


async def test_a_service_elsewhere_is_asked_over_https(trusting: tuple[Bench, Authority], tmp_path: Path) -> None:
    bench, authority = trusting
    host, service = await bench.serve("blog", await bench.apps.start(inside)), Service()
    async with over_https(service, authority, "auth.example.org", tmp_path) as port:
        await set_policy(bench, "blog", **{**CHECK, "auth.forward": f"https://auth.example.org:{port}/check"})
        for _ in range(3):
            status, text = await bench.visitor.get(host)
            assert status == 200 and json.loads(text)["Remote-User"] == ["alice"]
        assert service.asked[0].host == f"auth.example.org:{port}"


async def test_nobody_is_asked_who_cannot_show_the_names_certificate(
    trusting: tuple[Bench, Authority], tmp_path: Path
) -> None:
    """A name that somebody points at an address inside, and a certificate of another authority."""
    bench, authority = trusting
    host, service = await bench.serve("blog", await bench.apps.start(inside)), Service()
    plain = await bench.apps.start(service.handle)
    foreign = Authority.new()
    async with (
        over_https(service, authority, "inside.example.org", tmp_path) as port,
        over_https(service, foreign, "auth.example.org", tmp_path) as other,
    ):
        for url in (
            f"https://auth.example.org:{port}/",
            f"https://auth.example.org:{other}/",
            f"https://auth.example.org:{plain.port}/",
            f"http://auth.example.org:{plain.port}/",
            f"http://localhost:{plain.port}/",
        ):
            await set_policy(bench, "blog", **{"auth.forward": url})
            assert (await bench.visitor.get(host))[0] == 503, url
    assert service.asked == []
    assert "auth.forward of blog: " in bench.edge._nginx.layout.error_log.read_text()
    await bench.edge.set_site(Site("blog", (host,)))


async def test_roots_that_cannot_be_used_stop_nothing(bench: Bench, tmp_path: Path) -> None:
    broken = bench.directory / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    closed = tmp_path / "closed.pem"
    closed.write_text(Authority.new().pem)
    closed.chmod(0o600)
    for number, roots in enumerate((broken, closed, tmp_path / "missing.pem", "")):
        http = replace(
            bench.http, port=free_port(), https_port=0, ca_bundle=str(roots), resolvers="nonsense ::1 fe80::1%lo"
        )
        edge = Edge(bench.directory / f"r{number}", TEMPLATES, http)
        try:
            await edge.start()
            await edge.set_site(Site("blog", ("blog.test",)))
        finally:
            await edge.stop()
