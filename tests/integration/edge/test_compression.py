"""Compression at the edge, for visitors who can read it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping

import brotli
import pytest
from aiohttp import web

from paasd.edge_values import Site
from paasd.route import nginx_program
from tests.integration.edge.conftest import Bench

TEXT = "all work and no play " * 200
ON = json.dumps({"compression": True})


class App:
    def __init__(self) -> None:
        self.headers = {"Content-Type": "text/html; charset=utf-8"}
        self.body = TEXT.encode()
        self.seen: list[Mapping[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.headers)
        return web.Response(body=self.body, headers=self.headers)


@pytest.fixture
async def app(bench: Bench) -> App:
    app = App()
    await bench.serve("blog", await bench.apps.start(app.answer), policy=ON)
    return app


async def get(bench: Bench, accepted: str) -> tuple[bytes, Mapping[str, str]]:
    headers = {"Host": "blog.test", "Accept-Encoding": accepted}
    session = bench.visitor.session
    async with session.get(bench.visitor.url(), headers=headers, auto_decompress=False) as response:
        assert response.status == 200
        return await response.read(), response.headers


async def test_each_visitor_gets_what_it_can_read(bench: Bench, app: App) -> None:
    body, headers = await get(bench, "gzip")
    assert headers["Content-Encoding"] == "gzip" and headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(body).decode() == TEXT and len(body) < len(TEXT) / 5
    body, headers = await get(bench, "identity")
    assert body.decode() == TEXT and "Content-Encoding" not in headers and headers["Vary"] == "Accept-Encoding"


async def test_brotli_where_it_is_packaged(bench: Bench, app: App) -> None:
    body, headers = await get(bench, "gzip, br")
    assert await nginx_program.brotli(), "scripts/setup installs it"
    assert headers["Content-Encoding"] == "br" and brotli.decompress(body).decode() == TEXT


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "image/png"}, TEXT.encode()),
        ({"Content-Type": "text/html"}, b"short"),
        ({"Content-Type": "text/html", "Content-Encoding": "gzip"}, gzip.compress(TEXT.encode())),
        ({"Content-Type": "text/event-stream"}, TEXT.encode()),
    ],
)
async def test_what_is_left_as_it_is(bench: Bench, app: App, headers: dict[str, str], body: bytes) -> None:
    app.headers, app.body = headers, body
    seen, answered = await get(bench, "gzip, br")
    assert seen == body and answered.get("Content-Encoding") == headers.get("Content-Encoding")


async def test_only_apps_that_want_it(bench: Bench, app: App) -> None:
    for policy in ("", json.dumps({"headers": {"response": [["set", "X-A", "b"]]}})):
        await bench.edge.set_site(Site("blog", ("blog.test",), policy=policy))
        body, headers = await get(bench, "gzip, br")
        assert body.decode() == TEXT and "Vary" not in headers
    assert app.seen[-1]["Accept-Encoding"] == "gzip, br", "the app may compress by itself"


async def test_with_what_else_takes_a_location_of_its_own(bench: Bench, app: App) -> None:
    cached = {"cache": {"id": "a", "version": 0, "stale": True}}
    for more in ({"retries": {"count": 1, "on": ["502", "503"], "budget": 20}}, cached):
        await bench.edge.set_site(Site("blog", ("blog.test",), policy=json.dumps({"compression": True, **more})))
        for _ in range(2):
            assert gzip.decompress((await get(bench, "gzip"))[0]).decode() == TEXT


async def test_kept_answers_are_compressed_for_each_visitor(bench: Bench, app: App) -> None:
    policy = {"compression": True, "cache": {"id": "a", "version": 0}}
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=json.dumps(policy)))
    app.headers["Cache-Control"] = "max-age=60"
    for accepted in ("gzip", "identity", "br", "gzip"):
        body, headers = await get(bench, accepted)
        decoded = {"gzip": gzip.decompress, "br": brotli.decompress, "identity": bytes}[accepted](body)
        assert decoded.decode() == TEXT
    assert headers["Cache-Status"] == "paasd; hit" and len(app.seen) == 1
