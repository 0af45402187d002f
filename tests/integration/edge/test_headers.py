"""Header rules: what apps and visitors get, and what nobody may inject."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy
from tests.integration.edge.raw import exchange


async def mirror(request: web.Request) -> web.StreamResponse:
    """Tells the headers it got."""
    if request.headers.get("Upgrade") == "websocket":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps([[k, v] for k, v in request.headers.items()]))
        await socket.close()
        return socket
    return web.json_response(
        [[name, value] for name, value in request.headers.items()],
        headers={"X-Powered-By": "mirror", "X-Frame-Options": "ALLOWALL", "Link": "</own>", "Cache-Control": "private"},
    )


async def mirrored(bench: Bench, **settings: str) -> str:
    host = await bench.serve("blog", await bench.apps.start(mirror))
    await set_policy(bench, "blog", **settings)
    return host


async def got(bench: Bench, host: str, name: str, path: str = "/", **headers: str) -> list[str]:
    """Values of a header that the app gets."""
    status, text = await bench.visitor.get(host, path, **headers)
    assert status == 200, text
    return [value for each, value in json.loads(text) if each.lower() == name.lower()]


async def test_requests(bench: Bench) -> None:
    host = await mirrored(
        bench,
        header__request='set X-Tenant "a; b"; add Accept text/x; remove Cookie\nset X-Where {scheme}://{host}{path}#{app}'
        "; set X-From {client_ip} {request_id}; set X-Odd {not-one} {}",
    )
    client = {"X-Tenant": "mine", "Cookie": "a=1", "Accept": "text/html", "X-Request-Id": "abc"}
    assert await got(bench, host, "X-Tenant", **client) == ["a; b"]
    assert await got(bench, host, "Accept", **client) == ["text/html", "text/x"]
    assert await got(bench, host, "Cookie", **client) == []
    assert await got(bench, host, "X-Where", "/a/b?token=1") == ["http://blog.test/a/b#blog"]
    assert await got(bench, host, "X-From", **client) == ["127.0.0.1 abc"]
    assert await got(bench, host, "X-Odd") == ["{not-one} {}"]
    async with bench.visitor.session.ws_connect(bench.visitor.url("/ws"), headers={"Host": host}) as socket:
        assert ["X-Tenant", "a; b"] in json.loads(await socket.receive_str())


async def test_answers(bench: Bench) -> None:
    host = await mirrored(
        bench,
        header__response="set X-Frame-Options DENY; remove X-Powered-By; remove Server;"
        " add Link </more>; set X-App {app}",
        request_id="on",
    )
    async with bench.visitor.session.get(
        bench.visitor.url(), headers={"Host": host, "X-Request-Id": "abc"}
    ) as response:
        assert response.headers.getall("X-Frame-Options") == ["DENY"]
        assert not {"X-Powered-By", "Server"} & response.headers.keys()
        assert response.headers.getall("Link") == ["</own>", "</more>"]
        assert (response.headers["X-App"], response.headers["X-Request-Id"]) == ("blog", "abc")
        assert ["x-request-id", "abc"] in [[name.lower(), value] for name, value in await response.json()]


async def test_the_edges_own_answers_are_left_alone(bench: Bench) -> None:
    host = await mirrored(bench, header__response="set Cache-Control public", deny="127.0.0.1")
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert (response.status, response.headers["Cache-Control"]) == (403, "no-store")
    await set_policy(bench, "blog", header__response="set Cache-Control public")
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert (response.status, response.headers.getall("Cache-Control")) == (200, ["public"])


async def test_what_a_client_writes_ends_no_header(bench: Bench) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(head), head))
        await writer.drain()

    await bench.serve("blog", await bench.apps.raw(tell))
    await set_policy(
        bench,
        "blog",
        header__response="set X-Path {path}; set X-Id {request_id}",
        header__request="set X-Path {path}; add X-Path {request_id}",
    )
    for path in (b"/a%0d%0aSet-Cookie:%20evil=1", b"/%0aevil:1", b"/\xc4\x8d\xc4\x8aevil:1", b"/%7f\xff", b"/#\xe5"):
        answer = await exchange(
            bench.http.port, b"GET " + path + b" HTTP/1.1\r\nHost: blog.test\r\nX-Request-Id: a%0d%0aevil:1\r\n\r\n"
        )
        answered, _, got_by_app = answer.partition(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 200"), answered
        for head, paths in ((answered, 1), (got_by_app.strip(), 2)):
            lines = head.split(b"\r\n")[1:]
            names = [line.partition(b":")[0].lower() for line in lines]
            assert not {b"set-cookie", b"evil"} & set(names) and names.count(b"x-path") == paths
            assert all(0x20 <= byte < 0x7F for line in lines for byte in line)
    bare = await exchange(bench.http.port, b"GET /a\rSet-Cookie:evil=1 HTTP/1.1\r\nHost: blog.test\r\n\r\n")
    assert bare.startswith(b"HTTP/1.1 400")


async def test_rules_hold_over_kept_connections_and_many_at_once(bench: Bench) -> None:
    await mirrored(bench, header__request="set X-Path {path}")
    host = "blog.test"
    answers = await asyncio.gather(*(got(bench, host, "X-Path", f"/{number}") for number in range(200)))
    assert answers == [[f"/{number}"] for number in range(200)]


@pytest.mark.parametrize("verb", ["set {} x-1", "add {} x-1", "remove {}"])
async def test_headers_that_nginx_knows_itself(bench: Bench, verb: str) -> None:
    """Nginx keeps some in places of their own, which a rule must not break."""
    of_requests = [
        "Accept",
        "User-Agent",
        "Cookie",
        "Authorization",
        "Referer",
        "Via",
        "Content-Type",
        "Accept-Encoding",
    ]
    of_requests += [
        "If-Match",
        "If-None-Match",
        "If-Modified-Since",
        "Range",
        "If-Range",
        "Date",
        "Destination",
        "Depth",
    ]
    of_answers = ["Server", "Location", "Refresh", "Last-Modified", "Content-Range", "Accept-Ranges", "ETag", "Expires"]
    of_answers += ["WWW-Authenticate", "Cache-Control", "Link", "Content-Type", "Set-Cookie", "Content-Location"]
    master = bench.edge._nginx.master()
    assert master is not None
    workers = {worker.pid for worker in master.children()}

    present: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response([*request.headers], headers=dict.fromkeys(present, "there"))

    for own in ([], ["Location", "ETag", "Server", "Set-Cookie", "Cache-Control", "Expires", "WWW-Authenticate"]):
        present[:] = own
        host = await bench.serve("blog", await bench.apps.start(answer))
        await set_policy(
            bench,
            "blog",
            header__request=";".join(verb.format(name) for name in of_requests),
            header__response=";".join(verb.format(name) for name in of_answers),
        )
        for sent in ({}, {"Cookie": "a=b", "User-Agent": "me", "Range": "bytes=0-1", "If-None-Match": "a"}):
            async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host, **sent}) as response:
                names = {name.lower() for name in json.loads(await response.read())}
                assert (response.status, {*of_answers} <= response.headers.keys()) == (200, verb[0] != "r")
                assert ({name.lower() for name in of_requests} <= names) == (verb[0] != "r")
                if verb[0] == "r":
                    assert not {*of_answers} & response.headers.keys()
                    assert not {name.lower() for name in of_requests} & names
    assert {worker.pid for worker in master.children()} == workers
