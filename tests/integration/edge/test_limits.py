"""Limits of rate and of what is under way, with real clients."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web

from paasd.config import HttpConfig
from paasd.edge_values import Route, Site
from paasd.models import Secret
from paasd.route.edge import Edge
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import TEMPLATES, Bench, until
from tests.integration.edge.policies import set_policy
from tests.ports import free_port
from tests.tls import Authority


async def limited(bench: Bench, app: str = "blog", **limits: str) -> str:
    host = await bench.serve(app, await bench.apps.saying("hello"))
    await set_policy(bench, app, **{f"limit__{name}": value for name, value in limits.items()})
    return host


async def statuses(bench: Bench, host: str, count: int, path: str = "/", **headers: str) -> list[int]:
    return [(await bench.visitor.get(host, path, **headers))[0] for _ in range(count)]


async def test_a_bucket_is_emptied_and_fills_again(bench: Bench) -> None:
    host = await limited(bench, rate="2/s burst 5")
    before = time.monotonic()
    found = await statuses(bench, host, 12)
    most = 5 + 2 * (time.monotonic() - before)
    assert 5 <= found.count(200) <= most and set(found) == {200, 429}
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert response.status == 429 and int(response.headers["Retry-After"]) == 1
        assert "Too many requests" in await response.text()
        assert response.headers["Cache-Control"] == "no-store"
    await asyncio.sleep(1)
    assert (await statuses(bench, host, 1)) == [200]


async def test_retry_after_is_when_the_next_is_let_in(bench: Bench) -> None:
    host = await limited(bench, rate="1/m burst 2; 2/h by all on /other")
    assert await statuses(bench, host, 2) == [200, 200]
    headers = {"Host": host, "Accept": "application/json"}
    async with bench.visitor.session.get(bench.visitor.url(), headers=headers) as response:
        assert response.content_type == "application/problem+json"
        assert (await response.json())["code"] == "too-many-requests"
        assert 55 <= int(response.headers["Retry-After"]) <= 60


async def test_all_workers_spend_from_one_bucket(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 50")

    async def ask() -> int:
        async with aiohttp.ClientSession() as session:
            async with session.get(bench.visitor.url(), headers={"Host": host}) as response:
                return response.status

    found = [status for _ in range(5) for status in await asyncio.gather(*(ask() for _ in range(40)))]
    assert found.count(200) == 50 and found.count(429) == 150


async def test_headers_that_say_who_asks_change_nothing(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 3")
    names = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP")
    found = [
        (
            await bench.visitor.get(
                host, **{name: f"for=192.0.2.{number}" if name == "Forwarded" else f"192.0.2.{number}"}
            )
        )[0]
        for number, name in enumerate(names)
    ]
    assert found == [200, 200, 200, 429, 429, 429]


async def test_by_header(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 2 by header:x-api-key")
    assert await statuses(bench, host, 3, **{"X-Api-Key": "one"}) == [200, 200, 429]
    assert await statuses(bench, host, 3, **{"x-api-key": "two"}) == [200, 200, 429]
    assert await statuses(bench, host, 3, **{"X-Api-Key": "long" * 2000}) == [200, 200, 429]
    assert await statuses(bench, host, 3) == [200, 200, 429], "none goes by address"
    assert await statuses(bench, host, 1, **{"X-Api-Key": ""}) == [429], "and so does an empty one"


async def raw(bench: Bench, text: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.http.port)
    try:
        writer.write(text.encode("latin-1"))
        line = await asyncio.wait_for(reader.readline(), 10)
        return int(line.split()[1])
    finally:
        writer.close()


async def test_a_header_given_twice_goes_by_address(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 2 by header:x-api-key")
    asked = [
        f"GET / HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {number}\r\nX-Api-Key: mine\r\nConnection: close\r\n\r\n"
        for number in range(4)
    ]
    assert [await raw(bench, text) for text in asked] == [200, 200, 429, 429]
    many = "".join(f"X-Other-{number}: {number}\r\n" for number in range(110))
    behind = f"GET / HTTP/1.1\r\nHost: {host}\r\n{many}X-Api-Key: last\r\nConnection: close\r\n\r\n"
    assert [await raw(bench, behind) for _ in range(3)] == [200, 200, 429], "the hundredth header is not the last"
    assert await raw(bench, f"GET / HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: a\x00b\r\nConnection: close\r\n\r\n") == 400
    assert await raw(bench, f"GET /%00 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n") == 400


async def test_invented_values_are_limited_and_push_nobody_out(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 2 by header:x-api-key; 1/h burst 3 by ip on /login")
    assert await statuses(bench, host, 4, "/login", **{"X-Api-Key": "known"}) == [200, 200, 429, 429]
    found = [(await bench.visitor.get(host, **{"X-Api-Key": f"key{number}"}))[0] for number in range(60)]
    assert found.count(200) == 19, "ten times two from one address, of which the known one was the first"
    assert await statuses(bench, host, 1, **{"X-Api-Key": "known"}) == [429]


async def test_paths(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 2 on /login; 1/h burst 3 by path on /page")
    wanted = {"/login": 200, "/login/x?a=b": 200, "/l%6fgin": 429, "/x/../login": 429, "//login": 429, "/login/": 429}
    for path, status in wanted.items():
        line = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert await raw(bench, line) == status, path
    for path in ("/", "/loginx", "/Login"):
        assert await statuses(bench, host, 5, path) == [200] * 5, path
    for path in ("/page/1", "/page/2"):
        assert await statuses(bench, host, 4, path) == [200, 200, 200, 429]


async def test_what_one_rule_refuses_costs_no_token_of_another(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 4; 1/h burst 1 on /login")
    assert await statuses(bench, host, 10, "/login") == [200] + [429] * 9
    assert await statuses(bench, host, 4) == [200, 200, 200, 429]


async def test_apps_do_not_share_buckets(bench: Bench) -> None:
    one, two = await limited(bench, "one", rate="1/h burst 1"), await limited(bench, "two", rate="1/h burst 1")
    assert await statuses(bench, one, 2) == [200, 429]
    assert await statuses(bench, two, 2) == [200, 429]
    await set_policy(bench, "one", limit__rate="1/h burst 1", balance__algorithm="ewma")
    assert await statuses(bench, one, 1) == [429], "a changed policy keeps the buckets"
    await set_policy(bench, "one")
    assert await statuses(bench, one, 2) == [200, 200]


async def test_challenges_streams_and_websockets_are_limited(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 1")
    assert await statuses(bench, host, 1) == [200]
    for headers in ({"Accept": "text/event-stream"}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
        assert await statuses(bench, host, 1, **headers) == [429]
    assert await statuses(bench, host, 1, "/.well-known/acme-challenge/token") == [429]


@pytest.fixture
def networks() -> Iterator[tuple[str, str, str]]:
    """Three addresses of this machine, of which two lie in one /64."""
    prefix = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}"
    found = (f"{prefix}:1::1", f"{prefix}:1:ffff::2", f"{prefix}:2::1")
    try:
        for address in found:
            subprocess.run(["ip", "-6", "addr", "add", f"{address}/128", "dev", "lo", "nodad"], check=True, timeout=10)
        yield found
    finally:
        for address in found:
            subprocess.run(["ip", "-6", "addr", "del", f"{address}/128", "dev", "lo"], check=False, timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="adds addresses")
async def test_ipv6_clients_are_counted_by_their_network(bench: Bench, networks: tuple[str, str, str]) -> None:
    port, directory = free_port(), bench.directory / "six"
    edge = Edge(directory, TEMPLATES, HttpConfig(address="::1", port=port, https_port=0))
    try:
        await edge.start()
        text = json.dumps({"limits": {"rate": [{"every": 3600, "burst": 1, "by": "ip"}]}})
        await edge.set_site(Site("blog", ("blog.test",), policy=text))
        await edge.set_route(Route("blog", (await bench.apps.saying("hello"),), 1))
        found = []
        for address in networks:
            connector = aiohttp.TCPConnector(local_addr=(address, 0))
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get(f"http://[::1]:{port}/", headers={"Host": "blog.test"}) as response:
                    found.append(response.status)
        assert found == [200, 429, 200]
    finally:
        await edge.stop()


async def test_each_request_of_http_2_is_counted(bench: Bench) -> None:
    host = await limited(bench, rate="1/h burst 2")
    key, chain = Authority.new().leaf((host,))
    await bench.edge.tls.put(Served("one", (host,), Secret(key + chain)))
    port = bench.http.https_port
    urls = [f"https://{host}:{port}/{number}" for number in range(4)]
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sk", "--http2", "--resolve", f"{host}:{port}:127.0.0.1", "-w", "%{http_version} %{http_code}\n"),
        *(word for url in urls for word in ("-o", "/dev/null", url)),
        stdout=asyncio.subprocess.PIPE,
    )
    said = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert said.splitlines() == ["2 200", "2 200", "2 429", "2 429"]


class Slow:
    """An app that answers when it is told to."""

    def __init__(self) -> None:
        self.go, self.inside = asyncio.Event(), 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.inside += 1
        if request.headers.get("Upgrade"):
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            async for _ in websocket:
                pass
            return websocket
        await self.go.wait()
        return web.Response(text="slow")


async def holding(bench: Bench, rules: str) -> tuple[Slow, str]:
    slow = Slow()
    host = await bench.serve("blog", await bench.apps.start(slow.answer))
    await set_policy(bench, "blog", limit__connections=rules)
    return slow, host


async def inside(slow: Slow, count: int) -> None:
    async def is_so() -> bool:
        return slow.inside == count

    await until(is_so)


async def test_requests_at_a_time(bench: Bench) -> None:
    slow, host = await holding(bench, "3 by ip")
    waiting = [asyncio.create_task(bench.visitor.get(host)) for _ in range(3)]
    await inside(slow, 3)
    assert await statuses(bench, host, 5) == [429] * 5
    slow.go.set()
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    for _ in range(4):
        assert await statuses(bench, host, 2) == [200, 200], "places are given back"


async def test_websockets_at_a_time(bench: Bench) -> None:
    _, host = await holding(bench, "2 by ip on /ws; 50 by all")
    url, headers = bench.visitor.url("/ws"), {"Host": host}
    one = await bench.visitor.session.ws_connect(url, headers=headers)
    two = await bench.visitor.session.ws_connect(url, headers=headers)
    with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
        await bench.visitor.session.ws_connect(url, headers=headers)
    await one.close()

    async def has_room() -> bool:
        try:
            await (await bench.visitor.session.ws_connect(url, headers=headers)).close()
        except aiohttp.WSServerHandshakeError:
            return False
        return True

    await until(has_room)
    await two.close()


async def test_a_killed_worker_leaves_no_count(bench: Bench) -> None:
    slow, host = await holding(bench, "2 by ip")
    waiting = [asyncio.create_task(bench.visitor.get(host)) for _ in range(2)]
    await inside(slow, 2)
    assert await statuses(bench, host, 1) == [429]
    master = bench.edge._nginx.master()
    assert master is not None
    for worker in master.children():
        worker.kill()
    slow.go.set()  # the visitor asks once more when its connection breaks
    await asyncio.gather(*waiting, return_exceptions=True)

    async def is_open() -> bool:
        try:
            return (await bench.visitor.get(host))[0] == 200
        except aiohttp.ClientError:
            return False

    await until(is_open)
