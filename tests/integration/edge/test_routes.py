"""The route table: live changes, fail-over, the edge's own pages, and what survives."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from itertools import cycle

import pytest
from aiohttp import web

from paasd.edge_values import Endpoint, Route
from paasd.errors import EdgeError, InvalidInput
from tests.integration.edge.conftest import Bench, until
from tests.ports import free_port


async def keep_asking(bench: Bench, host: str, enough: asyncio.Event) -> Counter[tuple[int, str]]:
    answers: Counter[tuple[int, str]] = Counter()
    while not enough.is_set():
        answers[await bench.visitor.get(host)] += 1
    return answers


async def test_switching_under_keep_alive_load_fails_no_request(bench: Bench) -> None:
    endpoints = [await bench.apps.saying(text) for text in ("blue", "green")]
    host = await bench.serve("blog", endpoints[0])
    enough = asyncio.Event()
    clients = [asyncio.create_task(keep_asking(bench, host, enough)) for _ in range(8)]
    order: Iterator[Endpoint] = cycle(endpoints)
    for number in range(50):
        await bench.edge.set_route(Route("blog", (next(order),), number))
        await asyncio.sleep(0.02)
    enough.set()
    answers = sum(await asyncio.gather(*clients), Counter())
    assert answers.keys() == {(200, "blue"), (200, "green")}
    assert answers.total() > 200


async def test_a_switch_is_effective_when_the_call_returns(bench: Bench) -> None:
    blue, green = await bench.apps.saying("blue"), await bench.apps.saying("green")
    host = await bench.serve("blog", blue)
    for endpoint, text in [(green, "green"), (blue, "blue")] * 10:
        await bench.edge.set_route(Route("blog", (endpoint,), 2))
        assert await asyncio.gather(*(bench.visitor.get(host) for _ in range(4))) == [(200, text)] * 4


async def test_weights_share_the_requests(bench: Bench) -> None:
    blue, green, off = [await bench.apps.saying(text) for text in ("blue", "green", "off")]
    weighted = (Endpoint(blue.address, blue.port, 30), Endpoint(green.address, green.port, 10))
    host = await bench.serve("blog", *weighted, Endpoint(off.address, off.port, 0))
    answers = Counter([(await bench.visitor.get(host))[1] for _ in range(80)])
    # Each worker has a rhythm of its own, so the shares are off by one turn a worker at most.
    slack = 4 * (os.cpu_count() or 1)
    assert abs(answers["blue"] - 60) <= slack and abs(answers["green"] - 20) <= slack and answers.total() == 80
    assert "off" not in answers


async def test_unknown_host_is_told_so_without_naming_apps(bench: Bench) -> None:
    await bench.serve("secretapp", await bench.apps.saying("hello"))
    status, text = await bench.visitor.get("nobody.test")
    assert status == 404 and "<h1>No app at this address</h1>" in text and "secretapp" not in text
    status, text = await bench.visitor.get("nobody.test", Accept="application/json, text/html")
    assert status == 404 and json.loads(text)["code"] == "unknown-host"
    status, text = await bench.visitor.get("nobody.test", Accept="text/html, application/json")
    assert text.startswith("<!doctype html>")


@pytest.mark.parametrize("endpoints", [(), (Endpoint("127.0.0.1", 1, 0),)])
async def test_no_endpoint_is_a_503_that_retries(bench: Bench, endpoints: tuple[Endpoint, ...]) -> None:
    host = await bench.serve("blog", *endpoints)
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert response.status == 503 and response.headers["Retry-After"] == "3"
        assert response.headers["Server"] == "nginx" and response.headers["Cache-Control"] == "no-store"
        assert '<meta http-equiv="refresh"' in await response.text()
    status, text = await bench.visitor.get(host, Accept="application/json")
    assert status == 503 and json.loads(text)["code"] == "no-instance"
    assert (await bench.visitor.get(host, Accept="text/event-stream"))[0] == 503


async def test_refused_connection_is_a_502_that_retries(bench: Bench) -> None:
    host = await bench.serve("blog", Endpoint("127.0.0.1", free_port()))
    status, text = await bench.visitor.get(host)
    assert status == 502 and '<meta http-equiv="refresh"' in text
    assert (await bench.edge.counters())["blog"].statuses["5xx"] == 1
    assert await bench.edge.in_flight() == {}


async def test_silence_past_the_read_timeout_is_a_504(bench: Bench) -> None:
    async def sleep(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    host = await bench.serve("blog", await bench.apps.start(sleep), policy='{"timeouts":{"read":1}}')
    status, text = await bench.visitor.get(host)
    assert status == 504 and "took too long" in text


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_refused_connection_goes_to_the_next_endpoint(bench: Bench, method: str) -> None:
    dead = [Endpoint("127.0.0.1", free_port()) for _ in range(2)]
    host = await bench.serve("blog", *dead, await bench.apps.saying("alive"))
    for _ in range(12):
        request = bench.visitor.session.request(method, bench.visitor.url(), headers={"Host": host}, data=b"x" * 5000)
        async with request as response:
            assert (response.status, await response.text()) == (200, "alive")
    assert await bench.edge.in_flight() == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_reached_an_app_is_never_sent_again(bench: Bench, method: str) -> None:
    received = 0

    async def read_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received += bool(await reader.readuntil(b"\r\n\r\n"))

    host = await bench.serve("blog", *[await bench.apps.raw(read_and_hang_up) for _ in range(3)])
    for number in range(1, 7):
        async with bench.visitor.session.request(method, bench.visitor.url(), headers={"Host": host}) as response:
            assert response.status == 502
        assert received == number


async def test_routes_survive_a_restart_of_nginx_alone(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    before = await bench.edge.routes()
    master = bench.edge._nginx.master()
    assert master is not None
    command = " ".join(master.cmdline()).removeprefix("nginx: master process ").split()
    await bench.edge.stop()
    # As systemd would, without any of our code.
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    await until(lambda: bench.visitor.reaches(host))
    assert await bench.edge.routes() == before


async def test_a_reload_keeps_live_routes(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    (bench.directory / "routes.txt").unlink()
    await bench.serve("other")
    assert await bench.visitor.get(host) == (200, "hello")


async def test_table_and_mirror_are_equal(bench: Bench) -> None:
    await bench.serve("old", Endpoint("127.0.0.1", 1))
    wanted = [Route(f"app{n}", (Endpoint("10.0.0.1", 5000, n), Endpoint("10.0.0.2", 5000)), n) for n in range(30)]
    for route in wanted:
        await bench.edge.set_route(route)
    await bench.edge.remove_route("old")
    assert await bench.edge.routes() == {route.app: route for route in wanted}
    await bench.edge.stop()
    await bench.edge.start()
    assert await bench.edge.routes() == {route.app: route for route in wanted}
    await bench.edge.remove_route("app7")
    assert "app7" not in await bench.edge.routes()
    assert (bench.directory / "routes.txt").read_text().count("\n") >= 29


async def test_nothing_changes_when_the_route_cannot_be_set(bench: Bench) -> None:
    await bench.serve("blog", Endpoint("127.0.0.1", 1))
    mirror = (bench.directory / "routes.txt").read_text()
    for endpoint in (
        Endpoint("app.test", 80),
        Endpoint("::1", 80),
        Endpoint("10.0.0.1", 0),
        Endpoint("10.0.0.1", 1, -1),
    ):
        with pytest.raises(InvalidInput):
            await bench.edge.set_route(Route("blog", (endpoint,), 2))
    with pytest.raises(InvalidInput):
        await bench.edge.set_route(Route("blog 1\nother", (), 2))
    await bench.edge.stop()
    with pytest.raises(EdgeError, match="control socket"):
        await bench.edge.set_route(Route("blog", (), 2))
    assert (bench.directory / "routes.txt").read_text() == mirror
    assert not list(bench.directory.glob(".*"))


async def test_control_socket_is_private(bench: Bench) -> None:
    socket = bench.directory / "control" / "control.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert (await bench.visitor.get("edge", "/routes"))[0] == 404
