"""What is counted besides apps: requests by route."""

from __future__ import annotations

import asyncio
import io

import pytest
from aiohttp import web

from paasd.edge_values import InFlight, Route, Site
from paasd.route.control import AppCounters
from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy


async def answer(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    await asyncio.sleep(0.03 if request.path == "/api/slow" else 0)
    return web.Response(status=404 if request.path.endswith("/none") else 200, text="x" * 1000 + str(len(body)))


async def requests(bench: Bench, app: str = "blog") -> dict[str, int]:
    return {row: counted.requests for row, counted in (await bench.edge.further_counters(app)).items()}


async def ask(bench: Bench, host: str, *paths: str) -> None:
    await asyncio.gather(*(bench.visitor.get(host, path) for path in paths))


async def test_routes_count_what_they_were_asked_and_answered(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(answer))
    await set_policy(bench, "blog", traffic__routes="/api /none")
    await ask(bench, host, *["/api"] * 6, "/api/", "/api/none", "/api/none", "/api/slow", "/", "/", "/none")
    body = io.BytesIO(b"b" * 5000)
    async with bench.visitor.session.put(bench.visitor.url("/api/x"), headers={"Host": host}, data=body) as response:
        assert response.status == 200
    found = await bench.edge.further_counters("blog")
    api, none = found["blog:/api"], found["blog:/none"]
    assert found.keys() == {"blog:/api", "blog:/none"} and none.requests == none.statuses["4xx"] == 1
    assert api.requests == 11 == sum(api.latency.values())
    assert api.statuses == {"1xx": 0, "2xx": 9, "3xx": 0, "4xx": 2, "5xx": 0}
    assert api.bytes_in > 5000 and api.bytes_out > 11 * 1000 and api.seconds >= 0.03
    assert sum(count for bound, count in api.latency.items() if bound > 0.025) >= 1
    apps = await bench.edge.counters()
    assert apps.keys() == {"blog"} and apps["blog"].requests == 14, "rows of routes are no apps"
    assert apps["blog"].bytes_out > api.bytes_out + none.bytes_out


async def test_the_longest_of_whole_decoded_segments_counts(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(answer))
    await set_policy(bench, "blog", traffic__routes="/a /a/b /a:b@c")
    await ask(bench, host, "/a", "/a/", "/%61/x?q=/a/b", "/a/./c", "/a/bc")
    await ask(bench, host, "/a/b", "/a/%62/c", "/x/../a/b")
    await ask(bench, host, "/a:b@c/d", "/ab", "/A", "/x/a", "/?/a")
    assert await requests(bench) == {"blog:/a": 5, "blog:/a/b": 3, "blog:/a:b@c": 1}
    assert (await bench.edge.counters())["blog"].requests == 13


async def test_what_another_app_answers_is_counted_with_both(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(answer))
    own = await bench.serve("other", await bench.apps.start(answer))
    routes = [{"prefix": "/api", "app": "other", "strip": True}]
    await set_policy(bench, "blog", {"routes": routes, "traffic": {"routes": ["/api", "/api/v2"]}})
    await ask(bench, host, "/api/x", "/api/y", "/api/v2/z", "/")
    await ask(bench, own, "/api/x")
    assert await requests(bench) == {"blog:/api": 2, "blog:/api/v2": 1}
    assert {app: counted.requests for app, counted in (await bench.edge.counters()).items()} == {"blog": 1, "other": 4}
    assert await requests(bench, "other") == {}


@pytest.mark.parametrize(
    ("settings", "status"),
    [({"deny": "127.0.0.1"}, 403), ({"rewrite": "/api/* -> /moved/*"}, 200), ({"limit__rate": "1/h by all"}, 429)],
)
async def test_a_request_counts_where_it_was_asked_whoever_answers(
    bench: Bench, settings: dict[str, str], status: int
) -> None:
    host = await bench.serve("blog", await bench.apps.start(answer))
    await set_policy(bench, "blog", traffic__routes="/api /moved", **settings)
    await ask(bench, host, "/api/x")
    assert (await bench.visitor.get(host, "/api/x"))[0] == status
    counted = (await bench.edge.further_counters("blog"))["blog:/api"]
    assert counted.requests == 2 and counted.statuses[f"{status // 100}xx"] >= 1
    assert len(await requests(bench)) == 1


async def test_without_an_instance_and_with_websockets(bench: Bench) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    endpoint = await bench.apps.start(echo)
    host = await bench.serve("blog", endpoint)
    await set_policy(bench, "blog", traffic__routes="/api")
    async with bench.visitor.session.ws_connect(bench.visitor.url("/api/live"), headers={"Host": host}):
        pass
    await bench.edge.set_route(Route("blog", (), 2))
    assert (await bench.visitor.get(host, "/api"))[0] == 503
    counted = (await bench.edge.further_counters("blog"))["blog:/api"]
    assert (counted.statuses["1xx"], counted.statuses["5xx"], sum(counted.latency.values())) == (1, 1, 1)


async def test_rows_go_with_the_route_and_with_the_app(bench: Bench) -> None:
    for app in ("blog", "blog-2"):
        host = await bench.serve(app, await bench.apps.start(answer))
        await set_policy(bench, app, traffic__routes="/a /b")
        await ask(bench, host, "/a", "/b")
    assert await requests(bench) == {"blog:/a": 1, "blog:/b": 1}
    await set_policy(bench, "blog", traffic__routes="/b /c")
    await ask(bench, "blog.test", "/a", "/b", "/c")
    assert await requests(bench) == {"blog:/b": 2, "blog:/c": 1}
    await bench.serve("far")  # a reload
    assert await requests(bench) == {"blog:/b": 2, "blog:/c": 1}
    await set_policy(bench, "blog")
    assert await requests(bench) == {} and await requests(bench, "blog-2") == {"blog-2:/a": 1, "blog-2:/b": 1}
    await bench.edge.remove_site("blog-2")
    assert await bench.edge.further_counters() == {}


async def test_a_request_that_outlives_its_route_makes_no_row(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(text="done")

    host = await bench.serve("blog", endpoint := await bench.apps.start(wait))
    await set_policy(bench, "blog", traffic__routes="/old /kept")
    asked = [asyncio.create_task(bench.visitor.get(host, path)) for path in ("/old", "/kept")]
    await bench.in_flight_is({str(endpoint): InFlight(2)})
    await set_policy(bench, "blog", traffic__routes="/kept")
    go_on.set()
    assert await asyncio.gather(*asked) == [(200, "done")] * 2
    assert await requests(bench) == {"blog:/kept": 1}
    assert (await bench.edge.counters())["blog"].requests == 2


async def test_visitors_make_no_rows(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(answer))
    await set_policy(bench, "blog", traffic__routes="/api")
    await ask(bench, host, *(f"/api/{n}" for n in range(50)), *(f"/{n}" for n in range(50)), "/api%7C1", "/api%0Ax")
    await ask(bench, "nobody.test", "/api")
    assert await bench.edge.further_counters() == {
        "blog:/api": (await bench.edge.further_counters("blog"))["blog:/api"]
    }
    assert await requests(bench) == {"blog:/api": 50}


async def test_a_full_table_costs_the_rows_that_have_no_room_and_nothing_else(bench: Bench) -> None:
    host = await bench.serve("first", await bench.apps.start(answer))
    await set_policy(bench, "first", traffic__routes="/api")
    await ask(bench, host, "/api")
    apps, routes = 30, [f"/{'x' * 150}{n}" for n in range(120)]
    endpoint = await bench.apps.saying("hello")
    for number in range(apps):
        app = f"app-{number}"
        policy = {"traffic": {"routes": routes}}
        await set_policy(bench, app, policy)
        await bench.edge.set_route(Route(app, (endpoint,), 1))
        for start in range(0, len(routes), 40):
            await ask(bench, f"{app}.test", *routes[start : start + 40])
    found = await bench.edge.further_counters()
    assert 1000 < len(found) < apps * len(routes)
    assert all(whole(counted) for counted in found.values())
    await ask(bench, host, "/api", "/")
    assert await requests(bench, "first") == {"first:/api": 2}, "who was there first is counted on"
    counted = await bench.edge.counters()
    assert counted["first"].requests == 3 and all(counted[f"app-{n}"].requests == 120 for n in range(apps))
    for number in range(apps):
        await bench.edge.set_site(Site(f"app-{number}", ()))
    await set_policy(bench, "app-0", traffic__routes="/again")
    await ask(bench, "app-0.test", "/again")
    assert await requests(bench, "app-0") == {"app-0:/again": 1}, "there is room again"


def whole(counted: AppCounters) -> bool:
    return counted.requests == sum(counted.statuses.values()) == sum(counted.latency.values()) and counted.bytes_out > 0
