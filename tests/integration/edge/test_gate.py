"""The gate: policies that are in effect at once, and what passes it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from paasd.config import HttpConfig
from paasd.edge_values import Route, Site
from paasd.route.edge import Edge
from tests.integration.edge.conftest import TEMPLATES, Bench, running_edge
from tests.ports import free_port

HERE = "127.0.0.1/32"


def addresses(**lists: list[str]) -> str:
    return json.dumps({"addresses": lists})


async def said(bench: Bench, app: str = "blog", text: str = "hello", policy: str = "") -> str:
    return await bench.serve(app, await bench.apps.saying(text), policy=policy)


@pytest.mark.parametrize(
    ("lists", "passes"),
    [
        ({"allow": [HERE]}, True),
        ({"allow": ["10.0.0.0/8", "127.0.0.0/8"]}, True),
        ({"allow": ["126.0.0.0/7"]}, True),
        ({"allow": ["127.0.0.2/31"]}, False),
        ({"allow": ["10.0.0.0/8", "::/0"]}, False),
        ({"allow": ["0.0.0.0/0"]}, True),
        ({"deny": [HERE]}, False),
        ({"deny": ["127.0.0.128/25"]}, True),
        ({"allow": ["127.0.0.0/8"], "deny": [HERE]}, False),
    ],
)
async def test_addresses(bench: Bench, lists: dict[str, list[str]], passes: bool) -> None:
    host = await said(bench, policy=addresses(**lists))
    status, text = await bench.visitor.get(host)
    assert (status, "hello" in text) == ((200, True) if passes else (403, False))


@pytest.mark.parametrize(("network", "passes"), [("::1/128", True), ("::/127", True), ("2001:db8::/32", False)])
async def test_addresses_of_ipv6(bench: Bench, network: str, passes: bool) -> None:
    port = free_port()
    async with running_edge() as (_, directory, _):
        edge = Edge(directory / "six", TEMPLATES, HttpConfig(address="::1", port=port, https_port=0))
        try:
            await edge.start()
            await edge.set_site(Site("blog", ("blog.test",), policy=addresses(allow=[network])))
            await edge.set_route(Route("blog", (await bench.apps.saying("hello"),), 1))
            async with bench.visitor.session.get(f"http://[::1]:{port}/", headers={"Host": "blog.test"}) as response:
                assert response.status == (200 if passes else 403)
        finally:
            await edge.stop()


async def test_a_policy_comes_and_goes_without_a_reload(bench: Bench) -> None:
    host, other = await said(bench), await said(bench, "other", "other")
    master = bench.edge._nginx.master()
    assert master is not None
    workers = {worker.pid for worker in master.children()}
    for _ in range(3):
        await bench.edge.set_site(Site("blog", (host,), policy=addresses(deny=[HERE])))
        assert (await bench.visitor.get(host))[0] == 403
        assert await bench.visitor.get(other) == (200, "other")
        await bench.edge.set_site(Site("blog", (host,)))
        assert await bench.visitor.get(host) == (200, "hello")
    assert {worker.pid for worker in master.children()} == workers


async def test_a_policy_that_cannot_be_read_lets_nobody_in(bench: Bench) -> None:
    for policy in ("{", "7", '{"addresses":{"allow":["nonsense"]}}', '{"addresses":7}'):
        host = await said(bench, policy=policy)
        status, text = await bench.visitor.get(host)
        assert status == 500 and "hello" not in text, policy
    assert (await bench.visitor.get(await said(bench)))[0] == 200


async def test_streams_and_challenges_pass_the_gate_too(bench: Bench) -> None:
    host = await said(bench, policy=addresses(deny=[HERE]))
    for headers in ({"Accept": "text/event-stream"}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
        assert (await bench.visitor.get(host, **headers))[0] == 403
    path = "/.well-known/acme-challenge/token"
    assert (await bench.visitor.get(host, path))[0] == 403, "the app's own"
    await bench.edge.tls.set_challenge("token", "token.print")
    assert await bench.visitor.get(host, path) == (200, "token.print")


async def test_a_websocket_through_the_gate(bench: Bench) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    host = await bench.serve("blog", await bench.apps.start(echo), policy=addresses(allow=[HERE]))
    async with bench.visitor.session.ws_connect(bench.visitor.url(), headers={"Host": host}) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"


async def test_what_was_let_in_waits_for_an_app_that_sleeps(bench: Bench) -> None:
    host, endpoint = await said(bench, policy=addresses(allow=[HERE])), await bench.apps.saying("awake")
    await bench.edge.set_route(Route("blog", (), 1, hold=20.0))
    waiting = asyncio.create_task(bench.visitor.get(host))
    assert await bench.edge.wanted(10) == {"blog"}
    await bench.edge.set_route(Route("blog", (endpoint,), 1))
    assert await waiting == (200, "awake")
    assert (await bench.edge.counters())["blog"].requests == 1


async def test_a_kept_connection_asks_for_several_apps(bench: Bench) -> None:
    """Nothing that is known of one request is taken for the next one's."""
    closed = await said(bench, "closed", policy=addresses(deny=[HERE]))
    opened = await said(bench, "open", policy=addresses(allow=[HERE]))
    plain = await said(bench, "plain")
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        visitor = replace(bench.visitor, session=session)
        for _ in range(20):
            assert [(await visitor.get(host))[0] for host in (plain, closed, opened)] == [200, 403, 200]
    counters = await bench.edge.counters()
    assert {app: counters[app].requests for app in ("plain", "closed", "open")} == dict.fromkeys(
        ("plain", "closed", "open"), 20
    )


async def test_a_host_name_longer_than_any_is_nobodys(bench: Bench) -> None:
    """Each of its dots would be a look at the table."""
    await bench.edge.set_site(Site("blog", ("*.blog.test",)))
    await bench.edge.set_route(Route("blog", (await bench.apps.saying("hello"),), 1))
    assert await bench.visitor.get("a." * 100 + "blog.test") == (200, "hello")
    assert (await bench.visitor.get("a." * 3500 + "blog.test"))[0] == 404


async def test_an_upload_that_began_before_the_gate_was_set_does_not_get_past_it(bench: Bench) -> None:
    host = await said(bench)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.http.port)
    writer.write(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab".encode())
    await writer.drain()
    await asyncio.sleep(0.2)
    await bench.edge.set_site(Site("blog", (host,), policy=addresses(deny=[HERE])))
    writer.write(b"cd")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503") and b"hello" not in answer


@pytest.mark.parametrize("body_size", ["", "20m"], ids=["live", "block"])
async def test_a_gate_stays_shut_while_its_app_is_renamed(bench: Bench, body_size: str) -> None:
    endpoint, policy = await bench.apps.saying("secret"), addresses(deny=[HERE])
    for app in ("old", "new"):
        await bench.edge.set_route(Route(app, (endpoint,), 1))
    names = ["old", "new"] * 4
    await bench.edge.sync_sites([Site("new", ("blog.test",), policy=policy, body_size=body_size)])
    seen: set[int] = set()

    async def ask() -> None:
        while names:
            seen.add((await bench.visitor.get("blog.test"))[0])

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    while names:
        await bench.edge.sync_sites([Site(names.pop(0), ("blog.test",), policy=policy, body_size=body_size)])
    await asyncio.gather(*asking)
    assert 403 in seen and 200 not in seen


async def test_subrequests_pass_no_gate_and_leave_nothing_behind(bench: Bench) -> None:
    """Those of an administrator's `mirror`, whose end no log phase tells of."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text="hello")

    closed = await said(bench, "closed", policy=addresses(deny=[HERE]))
    host = await bench.serve("blog", await bench.apps.start(answer), snippet="mirror /copy;")
    for _ in range(20):
        assert await bench.visitor.get(host) == (200, "hello")
        assert (await bench.visitor.get(closed))[0] == 403
    assert "/copy" in asked, "an app without a gate gets them"
    trace = json.dumps({"trace": {"flags": "01"}})
    await bench.edge.set_site(Site("blog", (host,), snippet="mirror /copy;", policy=trace))
    asked.clear()
    for _ in range(20):
        assert await bench.visitor.get(host) == (200, "hello")
        assert (await bench.visitor.get(closed))[0] == 403
    assert asked == ["/"] * 20
