"""Floods against the whole edge: of requests, of connections, of clients that never finish what they began."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import psutil
import pytest
from aiohttp import web

from paasd.edge_values import Route, Site
from paasd.route.edge import Edge
from tests.integration.edge.conftest import TEMPLATES, Bench, until
from tests.ports import free_port

CLIENTS = "127.3.0."


@pytest.fixture
async def strict(bench: Bench) -> AsyncIterator[Bench]:
    """A second edge with limits of its own, on which `blog` and `other` are served."""
    http = replace(bench.http, port=free_port(), https_port=0, client_rate=10, client_connections=20)
    edge = Edge(bench.directory / "strict", TEMPLATES, http)
    await edge.start()
    visitor = replace(bench.visitor, port=http.port)
    strict = replace(bench, edge=edge, http=http, visitor=visitor)
    try:
        for app in ("blog", "other"):
            await strict.serve(app, await bench.apps.saying(app))
        yield strict
    finally:
        await edge.stop()


async def test_one_client_is_limited_over_all_apps(strict: Bench) -> None:
    before = time.monotonic()
    found = []
    for number in range(60):
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        found.append((await strict.visitor.get(("blog.test", "other.test", "nobody.test")[number % 3], **headers))[0])
    most = 21 + 10 * (time.monotonic() - before)
    assert 21 <= len(found) - found.count(429) <= most and set(found) == {200, 404, 429}
    headers = {"Host": "blog.test", "Accept": "application/json"}
    while True:
        async with strict.visitor.session.get(strict.visitor.url(), headers=headers) as response:
            if response.status == 429:
                assert response.headers["Retry-After"] == "1"
                assert (await response.json())["code"] == "too-many-requests"
                break
    connector = aiohttp.TCPConnector(local_addr=(f"{CLIENTS}9", 0))
    async with aiohttp.ClientSession(connector=connector) as session:
        assert (await replace(strict.visitor, session=session).get("blog.test"))[0] == 200, "another client is let in"


async def test_the_gate_and_its_streams_are_limited_once(strict: Bench) -> None:
    policy = json.dumps({"addresses": {"allow": ["127.0.0.0/8"]}})
    await strict.edge.set_site(Site("blog", ("blog.test",), policy=policy))
    found = [
        (await strict.visitor.get("blog.test", Accept="text/event-stream" if number % 2 else "*/*"))[0]
        for number in range(20)
    ]
    assert found == [200] * 20, "each counts once, on whatever way it goes"


async def test_a_flood_is_not_counted_by_route(strict: Bench) -> None:
    """A gate that lets all pass is passed before the limits of the whole box."""
    policy = json.dumps({"traffic": {"routes": ["/api"]}})
    await strict.edge.set_site(Site("blog", ("blog.test",), policy=policy))
    found = [(await strict.visitor.get("blog.test", "/api"))[0] for _ in range(60)]
    assert found.count(429) > 0

    async def all_are_counted() -> bool:
        return (await strict.edge.counters())["blog"].requests == 60

    await until(all_are_counted)
    assert (await strict.edge.further_counters("blog"))["blog:/api"].requests == found.count(200)


async def test_paasd_itself_is_not_limited(strict: Bench) -> None:
    for _ in range(50):
        assert await strict.edge.routes() is not None


async def test_nobody_is_limited_when_nothing_is_set(bench: Bench) -> None:
    http = replace(bench.http, port=free_port(), https_port=0, client_connections=0)
    edge = Edge(bench.directory / "open", TEMPLATES, http)
    try:
        await edge.start()
        await edge.set_site(Site("blog", ("blog.test",)))
        await edge.set_route(Route("blog", (await bench.apps.saying("blog"),), 1))
        visitor = replace(bench.visitor, port=http.port)
        answers = await asyncio.gather(*(visitor.get("blog.test") for _ in range(300)))
        assert {status for status, _ in answers} == {200}
    finally:
        await edge.stop()


SLOW = {
    "silent": b"",
    "half a line": b"GET /",
    "half a header": b"GET / HTTP/1.1\r\nHost: blog.test\r\nX-Slow: ",
    "half a body": b"POST / HTTP/1.1\r\nHost: blog.test\r\nContent-Length: 1000\r\n\r\nhalf",
    "no reading": b"GET /big HTTP/1.1\r\nHost: blog.test\r\n\r\n",
}


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.hastened("nginx.conf.j2", "client_header_timeout 15s;", "client_header_timeout 4s;")
@pytest.mark.hastened("nginx.conf.j2", "client_body_timeout 30s;", "client_body_timeout 6s;")
async def test_two_thousand_slow_clients_keep_nobody_out(bench: Bench) -> None:
    """Each kind comes from an address of its own; all but those that read slowly are cut off after the times of Nginx's
    configuration."""
    seen = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        return web.Response(body=bytes(20 * 1024**2) if request.path == "/big" else b"quick")

    host = await bench.serve("blog", await bench.apps.start(answer))
    async with contextlib.AsyncExitStack() as stack:
        readers: dict[str, list[asyncio.StreamReader]] = {}
        for number, (kind, begun) in enumerate(SLOW.items(), 1):
            for _ in range(20 if kind == "no reading" else 495):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", bench.http.port, local_addr=(f"{CLIENTS}{number}", 0), limit=1024
                )
                stack.callback(_abort, writer)
                writer.write(begun)
                readers.setdefault(kind, []).append(reader)
        slowest = 0.0
        for _ in range(20):
            asked = time.monotonic()
            assert await bench.visitor.get(host) == (200, "quick")
            slowest = max(slowest, time.monotonic() - asked)
        assert slowest < 2
        assert seen == 40, "of what is not whole the app hears nothing"
        for kind in ("silent", "half a line", "half a header", "half a body"):
            async with asyncio.timeout(60):
                ends = await asyncio.gather(*(reader.read() for reader in readers[kind]), return_exceptions=True)
            assert all(end == b"" or isinstance(end, ConnectionResetError) for end in ends)
    assert await bench.visitor.get(host) == (200, "quick")


async def test_a_thousand_websockets_and_many_reloads_pile_up_no_workers(bench: Bench) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    host = await bench.serve("chat", await bench.apps.start(echo))
    master = bench.edge._nginx.master()
    assert master is not None
    usual = len(master.children())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        url, headers = bench.visitor.url(), {"Host": host}
        sockets = [await session.ws_connect(url, headers=headers) for _ in range(1000)]
        for _ in range(20):
            bench.edge._nginx.reload()
            await asyncio.sleep(0.1)
        for socket in sockets[::50]:
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
        await asyncio.gather(*(socket.close() for socket in sockets))

    async def drained() -> bool:
        return len([each for each in master.children() if each.status() != psutil.STATUS_ZOMBIE]) == usual

    await until(drained)
