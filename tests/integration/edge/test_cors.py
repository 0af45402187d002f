"""Which other sites' scripts may use an app: what browsers are told."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy

ALLOW = "Access-Control-Allow-"


class Asked:
    """An app that says of itself that everybody may use it."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.methods.append(request.method)
        return web.Response(
            text="hello", headers={f"{ALLOW}Origin": "*", f"{ALLOW}Credentials": "true", "Vary": "Cookie"}
        )


async def ask(bench: Bench, method: str = "GET", **headers: str) -> tuple[int, CIMultiDictProxy[str]]:
    wanted: Mapping[str, str] = {
        "Host": "blog.test",
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }
    async with bench.visitor.session.request(method, bench.visitor.url(), headers=wanted) as response:
        await response.read()
        return response.status, response.headers


async def serving(bench: Bench, **settings: str) -> Asked:
    app = Asked()
    await bench.serve("blog", await bench.apps.start(app.answer))
    await set_policy(bench, "blog", **{f"cors__{key}": value for key, value in settings.items()})
    return app


async def preflight(bench: Bench, origin: str) -> tuple[int, CIMultiDictProxy[str]]:
    return await ask(bench, "OPTIONS", Origin=origin, Access_Control_Request_Method="PUT")


async def test_origins_that_are_listed(bench: Bench) -> None:
    app = await serving(
        bench, origins="https://a.example", methods="PUT", headers="X-A", expose="X-B", credentials="on", max_age="1m"
    )
    status, headers = await ask(bench, Origin="https://a.example")
    assert status == 200 and headers.getall(f"{ALLOW}Origin") == ["https://a.example"]
    assert headers.getall(f"{ALLOW}Credentials") == ["true"]
    assert headers["Access-Control-Expose-Headers"] == "X-B" and headers.getall("Vary") == ["Cookie", "Origin"]

    status, headers = await preflight(bench, "https://a.example")
    assert status == 204 and headers.getall(f"{ALLOW}Origin") == ["https://a.example"]
    assert (headers[f"{ALLOW}Methods"], headers[f"{ALLOW}Headers"]) == ("PUT", "X-A")
    assert (headers["Access-Control-Max-Age"], headers["Vary"]) == ("60", "Origin")
    assert app.methods == ["GET"], "the edge answers preflights"

    status, headers = await preflight(bench, "https://b.example")
    assert status == 403 and f"{ALLOW}Origin" not in headers and headers["Vary"] == "Origin"
    assert app.methods == ["GET"]
    assert (await ask(bench, "OPTIONS", Origin="https://a.example"))[0] == 200, "no preflight"
    assert app.methods == ["GET", "OPTIONS"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://b.example",
        "http://a.example",
        "https://a.example:8443",
        "https://a.example.evil.example",
        "https://evila.example",
        "https://w.example",
        "https://.w.example",
        "https://evilw.example",
        "https://evil.example/.w.example",
        "https://evil.example#.w.example",
        "https://evil.example?.w.example",
        "https://evil@x.w.example",
        "https://evil.example:80.w.example",
        "https://x.w.example.evil.example",
        "http://x.w.example",
        "null",
        "https://*.w.example",
        "*",
    ],
)
async def test_origins_that_are_not(bench: Bench, origin: str) -> None:
    await serving(bench, origins="https://a.example https://*.w.example", credentials="on")
    for kind in (ask(bench, Origin=origin), preflight(bench, origin)):
        _, headers = await kind
        assert not {f"{ALLOW}Origin", f"{ALLOW}Credentials"} & headers.keys()
    for good in ("https://a.example", "https://x.w.example", "https://x.y-1.w.example"):
        assert (await ask(bench, Origin=good))[1][f"{ALLOW}Origin"] == good
    assert f"{ALLOW}Origin" not in (await ask(bench))[1]


async def test_everybody(bench: Bench) -> None:
    await serving(bench, origins="*")
    status, headers = await ask(bench, Origin="https://any.example")
    assert (status, headers.getall(f"{ALLOW}Origin"), headers["Vary"]) == (200, ["*"], "Cookie")
    assert f"{ALLOW}Credentials" not in headers
    assert (await preflight(bench, "null"))[0] == 204


async def test_scripts_see_what_the_edge_answers(bench: Bench) -> None:
    await bench.serve("blog", await bench.apps.saying("hello"))
    await set_policy(bench, "blog", cors__origins="https://a.example", deny="127.0.0.1")
    status, headers = await ask(bench, Origin="https://a.example")
    assert (status, headers[f"{ALLOW}Origin"]) == (403, "https://a.example")


async def test_the_reason_of_a_refusal(bench: Bench) -> None:
    await serving(bench, origins="https://a.example")
    ways = {"Accept": "application/json", "Access-Control-Request-Method": "PUT", "Origin": "https://b.example"}
    async with bench.visitor.session.options(bench.visitor.url(), headers={"Host": "blog.test", **ways}) as response:
        assert json.loads(await response.text())["code"] == "cross-origin"
