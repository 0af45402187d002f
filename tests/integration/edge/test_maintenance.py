"""Apps that are being worked on, and pages of apps in place of the edge's own."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from paasd.edge_values import Endpoint, Route, Site
from paasd.errors import InvalidSite
from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy
from tests.integration.edge.raw import exchange
from tests.ports import free_port

PAGE = '<!doctype html>\n<meta charset=utf-8><title>Später</title>\n<p>"Back" at 5 \\ 日本 %s {app} </p>\n'


async def test_it_comes_and_goes_at_once(bench: Bench) -> None:
    host, other = (
        await bench.serve("blog", await bench.apps.saying("hello")),
        await bench.serve("other", await bench.apps.saying("other")),
    )
    master = bench.edge._nginx.master()
    assert master is not None
    workers = {worker.pid for worker in master.children()}
    for _ in range(3):
        await set_policy(bench, "blog", maintenance="on", maintenance__retry_after="5m")
        async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "300")
            assert response.headers["Cache-Control"] == "no-store" and "maintenance" in await response.text()
        status, text = await bench.visitor.get(host, Accept="application/json")
        assert (status, json.loads(text)["code"]) == (503, "maintenance")
        assert (await bench.visitor.get(host, Accept="text/event-stream"))[0] == 503
        assert await bench.visitor.get(other) == (200, "other")
        await set_policy(bench, "blog")
        assert await bench.visitor.get(host) == (200, "hello")
    assert {worker.pid for worker in master.children()} == workers


async def test_who_gets_in(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    for allow, status in (("127.0.0.0/8", 200), ("192.0.2.7 ::1", 503), ("0.0.0.0/0", 200)):
        await set_policy(bench, "blog", maintenance="on", maintenance__allow=allow)
        assert (await bench.visitor.get(host, **{"X-Forwarded-For": "192.0.2.7"}))[0] == status


async def test_websockets_bodies_and_sleeping_apps(bench: Bench) -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text="hello")

    host = await bench.serve("blog", await bench.apps.start(answer))
    await set_policy(bench, "blog", maintenance="on")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await bench.visitor.session.ws_connect(bench.visitor.url("/ws"), headers={"Host": host})
    assert refused.value.status == 503
    async with bench.visitor.session.post(
        bench.visitor.url("/in"), data=b"x" * 900_000, headers={"Host": host}
    ) as response:
        assert response.status == 503
    await bench.edge.set_route(Route("blog", (), 1, hold=20.0))
    assert (await asyncio.wait_for(bench.visitor.get(host), 5))[0] == 503
    assert await bench.edge.wanted(1) == set(), "nobody wakes it"
    assert asked == []


async def test_an_own_page(bench: Bench) -> None:
    host, other = await bench.serve("blog", await bench.apps.saying("hello")), await bench.serve("other")
    await set_policy(bench, "blog", maintenance="on", maintenance__page=PAGE, error_page__503="<p>none")
    await set_policy(bench, "other", maintenance="on")
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert await response.text() == PAGE
    async with bench.visitor.session.head(bench.visitor.url(), headers={"Host": host}) as response:
        assert (response.status, response.headers["Content-Length"]) == (503, str(len(PAGE.encode())))
    assert json.loads((await bench.visitor.get(host, Accept="application/json"))[1])["code"] == "maintenance"
    assert "Under maintenance" in (await bench.visitor.get(other))[1], "not another app's"


async def test_own_error_pages(bench: Bench) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    host, other = await bench.serve("blog"), await bench.serve("other")
    pages = {"error_page__502": "<p>our 502", "error_page__503": "<p>our 503", "error_page__504": "<p>our 504"}
    await set_policy(bench, "blog", **pages)
    assert await bench.visitor.get(host) == (503, "<p>our 503")
    assert (await bench.visitor.get(other))[1].startswith("<!doctype html>")
    for endpoint in (await bench.apps.raw(silent), Endpoint("127.0.0.1", free_port())):
        await bench.edge.set_route(Route("blog", (endpoint,), 1))
        assert await bench.visitor.get(host) == (502, "<p>our 502")
    status, text = await bench.visitor.get(host, Accept="application/json")
    assert (status, json.loads(text)["code"]) == (502, "app-silent")

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await bench.edge.set_route(Route("blog", (await bench.apps.raw(late),), 1))
    await set_policy(bench, "blog", timeout__read="0.2", **pages)
    assert await bench.visitor.get(host) == (504, "<p>our 504")
    answer = await exchange(bench.http.port, b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404") and b"our" not in answer


async def test_what_an_app_answers_itself_is_left_alone(bench: Bench) -> None:
    async def ill(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="the app's own")

    host = await bench.serve("blog", await bench.apps.start(ill))
    await set_policy(bench, "blog", error_page__503="<p>none")
    assert await bench.visitor.get(host) == (503, "the app's own")


async def test_an_open_breaker_shows_the_page(bench: Bench) -> None:
    async def ill(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    host = await bench.serve("blog", await bench.apps.start(ill))
    await set_policy(bench, "blog", breaker__share="50", breaker__least="1", error_page__503="<p>our 503")
    statuses = [await bench.visitor.get(host) for _ in range(20)]
    assert (503, "<p>our 503") in statuses


async def test_pages_outlive_nginx_and_go_with_the_app(bench: Bench) -> None:
    host = await bench.serve("blog", pages=json.dumps({"503": PAGE}))
    await bench.edge.stop()
    await bench.edge.start()
    assert await bench.visitor.get(host) == (503, PAGE)
    site = Site("blog", (host,), pages=json.dumps({"503": PAGE}))
    assert await bench.edge.differences([site]) == []
    assert await bench.edge.differences([Site("blog", (host,))]) == ["the pages of blog are not those that were set"]
    await bench.edge.sync_sites([Site("blog", (host,))])
    assert (await bench.visitor.get(host))[1] != PAGE
    await bench.edge.set_site(site)
    assert (await bench.visitor.get(host))[1] == PAGE
    await bench.edge.remove_site("blog")
    assert await bench.edge._tables.pages.live() == {}
    await bench.serve("blog")
    assert (await bench.visitor.get(host))[1] != PAGE


async def test_pages_of_many_apps_take_no_others_room(bench: Bench) -> None:
    """What does not fit is refused, and everything else goes on."""
    text = json.dumps({kind: "x" * 16_000 for kind in ("maintenance", "502", "503", "504")})
    sites = []
    with pytest.raises(InvalidSite, match="no room"):
        for number in range(200):
            site = Site(f"app{number}", (f"app{number}.test",), pages=text)
            await bench.edge.set_site(site)
            sites.append(site)
    assert len(sites) > 80
    host = await bench.serve("blog", await bench.apps.saying("hello"), policy='{"addresses":{"deny":[]}}')
    assert await bench.visitor.get(host) == (200, "hello")
    assert await bench.edge.sync_sites([*sites, Site("blog", (host,)), *too_many(text)]) == {}
    assert await bench.visitor.get(host) == (200, "hello")
    assert (await bench.visitor.get("app0.test"))[1] == "x" * 16_000


def too_many(text: str) -> list[Site]:
    return [Site(f"more{number}", (f"more{number}.test",), pages=text) for number in range(100)]
