"""Paths that the app sees otherwise than they were asked for."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy
from tests.integration.edge.raw import exchange


async def seen(request: web.Request) -> web.StreamResponse:
    return web.Response(text=request.raw_path)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("/old/a/b", "/new/a/b"),
        ("/old/", "/new/"),
        ("/old", "/old"),
        ("/older", "/older"),
        ("/old/a?x=%2F&y=/old/", "/new/a?x=%2F&y=/old/"),
        ("/exact", "/other"),
        ("/exact/", "/exact/"),
        ("/api/v1", "/v1"),
        ("/api/", "/"),
        ("/gone/far/away", "/"),
        ("/plain?old=/old/", "/plain?old=/old/"),
        ("/old/%C3%A4%20b", "/new/%C3%A4%20b"),
        ("/old/%0d%0aX:y", "/new/%0D%0AX:y"),
        ("/old/a%3Fb", "/new/a%3Fb"),
        ("/x/../old/a", "/new/a"),
        ("/%6fld/a", "/new/a"),
        ("//old//a", "/new/a"),
    ],
)
async def test_paths(rewriting: Bench, asked: str, wanted: str) -> None:
    answer = await exchange(rewriting.http.port, f"GET {asked} HTTP/1.1\r\nHost: blog.test\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert answer.rpartition(b"\n")[2].decode() == wanted


@pytest.fixture
async def rewriting(bench: Bench) -> Bench:
    async def tell(reader, writer) -> None:  # type: ignore[no-untyped-def]
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(path), path))
        await writer.drain()

    await bench.serve("blog", await bench.apps.raw(tell))
    await set_policy(
        bench, "blog", rewrite="/old/* -> /new/*; /new/* -> /never/*; /exact -> /other; /api/* -> /*; /gone/* -> /"
    )
    return bench


async def test_websockets_and_bodies(bench: Bench) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(text=f"{request.raw_path} {len(await request.read())}")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.raw_path)
        await socket.close()
        return socket

    host = await bench.serve("blog", await bench.apps.start(answer))
    await set_policy(bench, "blog", rewrite="/* -> /app/*")
    async with bench.visitor.session.ws_connect(bench.visitor.url("/ws?a=b"), headers={"Host": host}) as socket:
        assert await socket.receive_str() == "/app/ws?a=b"
    body = b"x" * 1_000_000
    async with bench.visitor.session.post(bench.visitor.url("/in"), data=body, headers={"Host": host}) as response:
        assert await response.text() == "/app/in 1000000"


async def test_what_another_app_answers_keeps_its_path(bench: Bench) -> None:
    await bench.serve("other", await bench.apps.start(seen))
    host = await bench.serve(
        "blog",
        await bench.apps.start(seen),
        policy='{"routes":[{"prefix":"/api","app":"other","strip":false}],"rewrite":[["/*","/app/*"]]}',
    )
    assert await bench.visitor.get(host, "/api/x") == (200, "/api/x")
    assert await bench.visitor.get(host, "/x") == (200, "/app/x")
