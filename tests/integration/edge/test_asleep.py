"""Requests to a sleeping app wait at the edge until it is awake."""

from __future__ import annotations

import asyncio
import time

import aiohttp
from aiohttp import web
from yarl import URL

from paasd.edge_values import Endpoint, Route, Site
from tests.integration.edge.conftest import Bench, running_edge, until


async def asleep(bench: Bench, app: str = "zoe", hold: float = 20.0) -> str:
    await bench.edge.set_site(Site(app, (f"{app}.test",)))
    await bench.edge.set_route(Route(app, (), 7, hold=hold))
    return f"{app}.test"


async def echoing(bench: Bench) -> Endpoint:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade"):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(str(message.data).upper())
            return socket
        return web.Response(text=f"{request.method} {request.raw_path} {(await request.read()).decode()[-20:]}")

    return await bench.apps.start(answer)


async def wake(bench: Bench, app: str = "zoe") -> None:
    assert await bench.edge.wanted(10) == {app}
    await bench.edge.set_route(Route(app, (await echoing(bench),), 7))


async def test_held_requests_reach_the_app_as_they_were_sent(bench: Bench) -> None:
    host = await asleep(bench)
    large = "x" * 300_000 + "the end"

    async def post() -> str:
        async with bench.visitor.session.post(bench.visitor.url("/up"), data=large, headers={"Host": host}) as answer:
            return await answer.text()

    async def stream() -> str:
        async with bench.visitor.session.ws_connect(bench.visitor.url("/ws"), headers={"Host": host}) as socket:
            await socket.send_str("hello")
            return str(await socket.receive_str())

    path = "/a%2Fb%20c?q=%2F"
    url = URL(bench.visitor.url(path), encoded=True)

    async def get() -> str:
        async with bench.visitor.session.get(url, headers={"Host": host}) as answer:
            return await answer.text()

    asked = asyncio.gather(get(), post(), stream())
    await wake(bench)
    got, posted, streamed = await asked
    assert got == f"GET {path} "
    assert posted == f"POST /up {large[-20:]}"
    assert streamed == "HELLO"
    counters = (await bench.edge.counters())["zoe"]
    assert counters.requests == 3 and counters.statuses["5xx"] == 0


async def test_after_the_limit_a_page_that_retries(bench: Bench) -> None:
    host = await asleep(bench, hold=0.4)
    started = time.monotonic()
    headers = {"Host": host, "Accept": "application/json"}
    async with bench.visitor.session.get(bench.visitor.url(), headers=headers) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "waking")
        assert int(answer.headers["Retry-After"]) > 0
    assert 0.4 <= time.monotonic() - started
    status, page = await bench.visitor.get(host)
    assert status == 503 and "http-equiv" in page and "asleep" in page


async def test_an_app_that_could_not_be_woken_holds_nobody_for_a_while(bench: Bench) -> None:
    host = await asleep(bench)
    asked = asyncio.create_task(bench.visitor.get(host))
    assert await bench.edge.wanted(10) == {"zoe"}
    await bench.edge.not_woken("zoe", 60)
    status, page = await asked
    assert status == 503 and "could not be started" in page
    assert (await bench.visitor.get(host))[1] == page
    assert await bench.edge.wanted(0) == set()
    await asleep(bench)
    asked = asyncio.create_task(bench.visitor.get(host))
    await wake(bench)
    assert (await asked)[0] == 200


async def test_who_is_held_asks_again_until_somebody_hears(bench: Bench) -> None:
    host = await asleep(bench)
    asked = asyncio.create_task(bench.visitor.get(host))
    for _ in range(2):
        assert await bench.edge.wanted(10) == {"zoe"}
    await wake(bench)
    assert (await asked)[0] == 200


async def test_an_app_stopped_for_good_lets_go(bench: Bench) -> None:
    host = await asleep(bench)
    asked = asyncio.create_task(bench.visitor.get(host))
    assert await bench.edge.wanted(10) == {"zoe"}
    await bench.edge.set_route(Route("zoe"))
    assert (await asked)[0] == 503 and "no running instance" in (await asked)[1]


async def test_no_more_are_held_than_a_limit(bench: Bench) -> None:
    host = await asleep(bench, hold=8.0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> int:
            async with session.get(bench.visitor.url(), headers={"Host": host}) as answer:
                return answer.status

        tasks = [asyncio.create_task(ask()) for _ in range(600)]
        await until(lambda: _some_done(tasks))
        await wake(bench)
        answers = await asyncio.gather(*tasks)
    assert set(answers) == {200, 503}
    assert answers.count(200) >= 256


async def _some_done(tasks: list[asyncio.Task[int]]) -> bool:
    return any(task.done() for task in tasks)


async def test_an_edge_that_starts_knows_who_sleeps() -> None:
    async with running_edge() as (edge, directory, _):
        await edge.set_route(Route("zoe", (), 7, hold=12.5))
        await edge.stop()
        assert (directory / "routes.txt").read_text() == "zoe 7 hold=12.5\n"
        await edge.start()
        assert await edge.routes() == {"zoe": Route("zoe", (), 7, hold=12.5)}
