"""Circuit breakers: when they open, what is answered meanwhile, and how they close."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from paasd.edge_values import Endpoint
from paasd.gateway.breaker import BreakerState, parse_breakers
from tests.integration.edge.conftest import Bench, until
from tests.integration.edge.policies import set_policy
from tests.ports import free_port


@dataclass
class Moody:
    """An app that fails while it is ill."""

    ill: bool = True
    asked: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if request.path == "/held":
            await self.hold.wait()
        if request.path == "/missing":
            return web.Response(status=404)
        return web.Response(status=500 if self.ill and request.path != "/well" else 200, text="from the app")


async def states(bench: Bench) -> dict[str, BreakerState]:
    return parse_breakers(await bench.edge._control.get("breakers"))


async def state(bench: Bench, app: str = "blog") -> str:
    found = await states(bench)
    return found[app].state if app in found else "closed"


async def opened(bench: Bench, host: str) -> None:
    async def is_open() -> bool:
        await bench.visitor.get(host)
        return await state(bench) == "open"

    await until(is_open)


async def moody(bench: Bench, **settings: str) -> tuple[str, Moody]:
    app = Moody()
    host = await bench.serve("blog", await bench.apps.start(app.answer))
    await set_policy(bench, "blog", **{"breaker__share": "50", "breaker__least": "10", **settings})
    return host, app


async def test_an_app_that_fails_is_left_alone_until_it_recovers(bench: Bench) -> None:
    host, app = await moody(bench, breaker__time="2s", breaker__probes="2")
    await opened(bench, host)
    asked = app.asked
    assert asked >= 10
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert response.status == 503 and 1 <= int(response.headers["Retry-After"]) <= 2
        assert "short break" in await response.text() and response.headers["Cache-Control"] == "no-store"
    status, text = await bench.visitor.get(host, Accept="application/json")
    assert (status, json.loads(text)["code"]) == (503, "breaker-open")
    seen = (await states(bench))["blog"]
    assert seen.state == "open" and 0 < seen.seconds <= 2 and seen.errors == seen.requests >= 10
    await asyncio.gather(*(bench.visitor.get(host) for _ in range(50)))
    assert app.asked == asked

    # Still ill: one probe says so, and it opens again.
    await until(lambda: is_state(bench, "half-open"))
    assert (await bench.visitor.get(host))[0] == 500
    await until(lambda: is_state(bench, "open"))
    assert app.asked == asked + 1

    app.ill = False
    await until(lambda: is_state(bench, "half-open"))

    async def all_is_well() -> bool:
        return (await bench.visitor.get(host))[0] == 200 and await state(bench) == "closed"

    await until(all_is_well)
    answers = await asyncio.gather(*(bench.visitor.get(host) for _ in range(30)))
    assert answers == [(200, "from the app")] * 30


async def is_state(bench: Bench, wanted: str) -> bool:
    return await state(bench) == wanted


async def test_only_so_many_probes_are_let_through(bench: Bench) -> None:
    host, app = await moody(bench, breaker__time="1s", breaker__probes="3")
    await opened(bench, host)
    app.ill = False
    await until(lambda: is_state(bench, "half-open"))
    await asyncio.sleep(0.2)
    asked = app.asked
    probes = [asyncio.create_task(bench.visitor.get(host, "/held")) for _ in range(20)]

    async def the_rest_is_refused() -> bool:
        return sum(task.done() for task in probes) == 17

    await until(the_rest_is_refused)
    assert app.asked == asked + 3 and {task.result()[0] for task in probes if task.done()} == {503}
    assert await state(bench) == "half-open"
    app.hold.set()
    assert [status for status, _ in await asyncio.gather(*probes)].count(200) == 3
    await until(lambda: is_state(bench, "closed"))


async def test_probes_whose_clients_left_are_replaced(bench: Bench) -> None:
    host, app = await moody(bench, breaker__time="1s", breaker__probes="1")
    await opened(bench, host)
    app.ill = False
    await until(lambda: is_state(bench, "half-open"))
    await asyncio.sleep(0.2)
    asked = app.asked
    gone = asyncio.create_task(bench.visitor.get(host, "/held"))

    async def probe_arrived() -> bool:
        return app.asked == asked + 1

    await until(probe_arrived)
    assert (await bench.visitor.get(host))[0] == 503
    gone.cancel()

    async def another_closes_it() -> bool:
        await bench.visitor.get(host)
        return await state(bench) == "closed"

    await until(another_closes_it)


@pytest.mark.parametrize(("paths", "opens"), [(("/", "/well"), True), (("/", "/well", "/well", "/missing"), False)])
async def test_it_opens_at_the_share(bench: Bench, paths: tuple[str, ...], opens: bool) -> None:
    host, _ = await moody(bench, breaker__share="40%", breaker__least="40")
    statuses = set()
    for number in range(400):
        status, _ = await bench.visitor.get(host, paths[number % len(paths)])
        statuses.add(status)
        if 503 in statuses:
            break
        await asyncio.sleep(0.005)  # workers look ten times a second
    assert (503 in statuses) is opens
    assert await state(bench) == ("open" if opens else "closed")


async def test_few_requests_prove_nothing(bench: Bench) -> None:
    host, app = await moody(bench, breaker__least="60", breaker__window="2s")
    for _ in range(50):
        assert (await bench.visitor.get(host))[0] == 500
    await asyncio.sleep(2.5)  # longer than the window
    for _ in range(50):
        assert (await bench.visitor.get(host))[0] == 500
    assert await state(bench) == "closed" and app.asked == 100


async def test_an_app_that_cannot_be_reached_opens_it(bench: Bench) -> None:
    host = await bench.serve("blog", *(Endpoint("127.0.0.1", free_port()) for _ in range(2)))
    await set_policy(bench, "blog", breaker__share="50", breaker__least="10", breaker__answer="502")
    await opened(bench, host)
    status, text = await bench.visitor.get(host)
    assert status == 502 and "short break" in text


async def test_an_app_that_hangs_up_opens_it(bench: Bench) -> None:
    async def read_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    host = await bench.serve("blog", *[await bench.apps.raw(read_and_hang_up) for _ in range(2)])
    await set_policy(bench, "blog", breaker__share="50", breaker__least="10")
    await opened(bench, host)
    assert (await bench.visitor.get(host))[0] == 503


async def test_an_app_without_instances_does_not_open_it(bench: Bench) -> None:
    host = await bench.serve("blog")
    await set_policy(bench, "blog", breaker__share="1", breaker__least="1")
    for _ in range(30):
        status, text = await bench.visitor.get(host)
        assert status == 503 and "short break" not in text
    assert await state(bench) == "closed"


async def test_streams_are_refused_too_and_those_under_way_go_on(bench: Bench) -> None:
    app = Moody()

    async def echo(request: web.Request) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            return await app.answer(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"echo {message.data}")
        return socket

    host = await bench.serve("blog", await bench.apps.start(echo))
    await set_policy(bench, "blog", breaker__share="50", breaker__least="10")
    async with bench.visitor.session.ws_connect(bench.visitor.url(), headers={"Host": host}) as socket:
        await opened(bench, host)
        await socket.send_str("hello")
        assert await socket.receive_str() == "echo hello"
        assert (await bench.visitor.get(host, Accept="text/event-stream"))[0] == 503
    await bench.in_flight_is({})


async def test_it_is_one_breaker_for_all_workers_and_for_this_app_alone(bench: Bench) -> None:
    host, app = await moody(bench, breaker__time="1h")
    other = await bench.serve("other", await bench.apps.saying("fine"))
    await set_policy(bench, "other", breaker__share="50", breaker__least="10")
    await opened(bench, host)
    await asyncio.sleep(0.2)
    asked = app.asked
    # Fresh connections, so that every worker is asked.
    for _ in range(60):
        async with bench.visitor.session.get(
            bench.visitor.url(), headers={"Host": host, "Connection": "close"}
        ) as response:
            assert response.status == 503
    assert app.asked == asked
    assert await bench.visitor.get(other) == (200, "fine")
    # Taking the policy away lets everybody in.
    await set_policy(bench, "blog")
    assert (await bench.visitor.get(host))[0] == 500


async def test_the_next_app_of_a_name_does_not_inherit_an_open_one(bench: Bench) -> None:
    host, app = await moody(bench, breaker__time="1h")
    await opened(bench, host)
    await bench.edge.remove_site("blog")
    assert await states(bench) == {}
    app.ill = False
    host = await bench.serve("blog", await bench.apps.start(app.answer))
    await set_policy(bench, "blog", breaker__share="50", breaker__least="10", breaker__time="1h")

    async def is_let_in() -> bool:
        return (await bench.visitor.get(host))[0] == 200

    await until(is_let_in)  # a worker looks ten times a second
