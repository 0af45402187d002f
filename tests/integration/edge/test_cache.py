"""The edge's cache: what is kept, for how long, for whom, and how it is forgotten."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from paasd.edge_values import CanaryRoute, Endpoint, Route, Site
from paasd.gateway.policy import policy_text
from paasd.models import Secret
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import Bench, until
from tests.integration.edge.members import Browser, part
from tests.tls import Authority

DAY = "public, max-age=86400"


def policy(**more: Any) -> str:
    return json.dumps({"cache": {"id": "app1", "version": 0, "files": 2592000, **more}})


@dataclass
class App:
    """Answers with what it is told to, and counts what it is asked."""

    headers: dict[str, str] = field(default_factory=lambda: {"Cache-Control": DAY})
    status: int = 200
    text: str = "one"
    seconds: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    seen: list[Mapping[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path_qs] += 1
        self.seen.append(request.headers)
        await asyncio.sleep(self.seconds)
        return web.Response(status=self.status, text=self.text, headers=self.headers)


@dataclass
class Cached:
    """An app behind the edge, with its cache on."""

    bench: Bench
    app: App
    endpoint: Endpoint
    host: str = ""

    async def get(self, path: str = "/", **headers: str) -> tuple[int, str, Mapping[str, str]]:
        url = URL(self.bench.visitor.url(path), encoded=True)
        headers = {"Host": self.host, **headers}
        async with self.bench.visitor.session.get(url, headers=headers) as response:
            return response.status, await response.text(), response.headers

    async def said(self, path: str = "/", **headers: str) -> str:
        """Cache-Status, without the name of the cache."""
        return (await self.get(path, **headers))[2].get("Cache-Status", "").removeprefix("paasd; ")

    async def once_expired(self, path: str = "/", **headers: str) -> tuple[int, str, Mapping[str, str]]:
        """The first answer that is not just what is kept: an age of one second may last for two of Nginx's."""
        for _ in range(600):
            found = await self.get(path, **headers)
            if found[2].get("Cache-Status") != "paasd; hit":
                return found
            await asyncio.sleep(0.05)
        raise AssertionError("it never expires")

    async def release(self, number: int, *endpoints: Endpoint) -> None:
        await self.bench.edge.set_route(Route("blog", endpoints or (self.endpoint,), number))


@pytest.fixture
async def cached(bench: Bench) -> Cached:
    app = App()
    endpoint = await bench.apps.start(app.answer)
    return Cached(bench, app, endpoint, await bench.serve("blog", endpoint, policy=policy()))


async def test_an_answer_is_kept_for_as_long_as_the_app_says(cached: Cached) -> None:
    cached.app.headers = {"Cache-Control": "max-age=1"}
    assert [await cached.said(), await cached.said()] == ["fwd=uri-miss", "hit"]
    assert cached.app.asked["/"] == 1
    cached.app.text = "two"
    assert (await cached.once_expired())[1] == "two"
    assert cached.app.asked["/"] == 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cache-Control": "no-store"},
        {"Cache-Control": "no-cache, max-age=60"},
        {"Cache-Control": "private, max-age=60"},
        {"Cache-Control": "max-age=0"},
        {"Cache-Control": "public"},
        {"Cache-Control": 'max-age="60"'},
        {"Cache-Control": DAY, "Set-Cookie": "session=1"},
        {"Cache-Control": DAY, "Vary": "*"},
        {"Expires": "0"},
        {"Expires": formatdate(0, usegmt=True)},
        {"Expires": "-1"},
        {"X-Accel-Expires": "0"},
        {"X-Accel-Expires": "off"},
        {"X-Accel-Expires": "600", "Cache-Control": "private, no-store"},
        {"Cache-Control": "s-maxage=0, max-age=60"},
        {"Cache-Control": DAY, "Vary": "Accept" + "-" * 130},
        {"Cache-Control": DAY, "Content-Length": "200000000"},
    ],
    ids=str,
)
async def test_what_is_not_kept(cached: Cached, headers: dict[str, str]) -> None:
    cached.app.headers = headers
    for number in range(1, 4):
        try:
            assert not (await cached.said("/page")).startswith("hit")
        except aiohttp.ClientPayloadError:
            assert "Content-Length" in headers, "the app sends less"
        assert cached.app.asked["/page"] == number


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "s-maxage=60, max-age=0"},
        {"Cache-Control": "max-age=60"},
        {"Expires": formatdate(4e9, usegmt=True)},
        {"X-Accel-Expires": "60"},
    ],
)
async def test_what_is_kept(cached: Cached, headers: dict[str, str]) -> None:
    cached.app.headers = headers
    await cached.get("/page")
    status, text, seen = await cached.get("/page")
    assert (status, text, seen["Cache-Status"]) == (200, "one", "paasd; hit") and cached.app.asked["/page"] == 1
    assert "X-Accel-Expires" not in seen


@pytest.mark.parametrize("status", [400, 401, 403, 405, 413, 429, 431, 500, 503])
async def test_what_a_visitor_may_provoke_is_not_kept(cached: Cached, status: int) -> None:
    cached.app.status = status
    assert (await cached.get("/x"))[0] == status
    cached.app.status = 200
    assert (await cached.get("/x"))[0] == 200
    assert await cached.said("/x") == "hit"


@pytest.mark.parametrize("status", [301, 404, 410])
async def test_other_statuses_are_kept_when_the_app_says_so(cached: Cached, status: int) -> None:
    cached.app.status = status
    cached.app.headers["Location"] = "/other"
    url, headers = cached.bench.visitor.url("/x"), {"Host": cached.host}
    for _ in range(2):
        async with cached.bench.visitor.session.get(url, headers=headers, allow_redirects=False) as response:
            assert response.status == status
    assert cached.app.asked["/x"] == 1


async def test_a_visitor_gets_only_what_was_made_for_such_a_request(cached: Cached) -> None:
    """Host, scheme, path and query are part of the key, what Vary names as well."""
    await cached.bench.edge.set_site(Site("blog", ("blog.test", "other.test"), policy=policy()))
    for path in ("/a", "/a?x=1", "/a?x=2", "/A", "/%61"):
        assert await cached.said(path) == "fwd=uri-miss"
        assert await cached.said(path) == "hit"
    assert await cached.said("/a", Host="other.test") == "fwd=uri-miss"
    assert await cached.said("/a", Host="blog.test:81") == "fwd=uri-miss"
    cached.app.headers["Vary"] = "Accept-Language"
    assert [await cached.said("/l", **{"Accept-Language": each}) for each in ("de", "fr", "de", "fr")] == [
        "fwd=uri-miss",
        "fwd=uri-miss",
        "hit",
        "hit",
    ]


async def test_what_several_lines_of_vary_name_counts_too(cached: Cached) -> None:
    """Nginx itself goes by the last one alone."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = CIMultiDict([("Cache-Control", DAY), ("Vary", "Cookie"), ("Vary", "Accept-Encoding")])
        return web.Response(text=f"for {request.headers.get('Cookie')}", headers=headers)

    await cached.release(2, await cached.bench.apps.start(answer))
    for cookie in ("u=alice", "u=bob", "u=alice"):
        assert (await cached.get("/me", Cookie=cookie))[1] == f"for {cookie}"


async def test_a_body_makes_an_answer_its_visitors_own(cached: Cached) -> None:
    """Over HTTP/2, where no header says that there is one."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"body {(await request.read()).decode()}", headers={"Cache-Control": DAY})

    bench, port = cached.bench, cached.bench.http.https_port
    await cached.release(2, await bench.apps.start(answer))
    key, chain = Authority.new().leaf((cached.host,))
    await bench.edge.tls.put(Served("one", (cached.host,), Secret(key + chain), "1.3"))

    async def ask(*options: str) -> str:
        command = ["curl", "-sk", "--http2", "--resolve", f"{cached.host}:{port}:127.0.0.1", *options]
        process = await asyncio.create_subprocess_exec(
            *command,
            f"https://{cached.host}:{port}/p",
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
        )
        return (await asyncio.wait_for(process.communicate(), 30))[0].decode()

    for _ in range(2):
        assert await ask("-X", "GET", "-H", "Content-Length:", "-d", "evil") == "body evil"
        assert await ask() == "body "


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer x"},
        {"X-Forwarded-Ssl": "on"},
        {"X-Method-Override": "DELETE"},
        {"X-Original-URL": "/admin"},
        {"X-Rewrite-URL": "/admin"},
        {"X-HTTP-Method-Override": "POST"},
        {"X-Forwarded-Prefix": "/x"},
        {"X-Host": "evil.test"},
    ],
)
async def test_what_a_header_may_have_changed_is_neither_kept_nor_given(cached: Cached, header: dict[str, str]) -> None:
    assert await cached.said("/a", **header) == ""
    assert await cached.said("/a") == "fwd=uri-miss"
    assert await cached.said("/a", **header) == ""
    assert cached.app.asked["/a"] == 3


async def test_only_get_and_head_are_kept(cached: Cached) -> None:
    session, url, headers = cached.bench.visitor.session, cached.bench.visitor.url("/form"), {"Host": cached.host}
    for method in ("POST", "PUT", "DELETE"):
        for _ in range(2):
            async with session.request(method, url, headers=headers) as response:
                assert response.status == 200 and "Cache-Status" not in response.headers
    async with session.request("GET", url, headers=headers, data=b"body") as response:
        assert "Cache-Status" not in response.headers
    assert cached.app.asked["/form"] == 7
    async with session.head(url, headers=headers) as response:
        assert response.headers["Cache-Status"] == "paasd; fwd=uri-miss"
    assert (await cached.get("/form"))[1:2] == ("one",) and cached.app.asked["/form"] == 8


async def test_age_conditions_and_ranges_are_the_edges_own(cached: Cached) -> None:
    cached.app.text = "0123456789"
    cached.app.headers |= {"Accept-Ranges": "bytes", "ETag": '"v1"', "Date": formatdate(usegmt=True)}
    await cached.get("/file", Range="bytes=2-3")
    status, text, headers = await cached.get("/file", Range="bytes=2-3")
    assert (status, text) == (206, "23") and int(headers["Age"]) >= 0
    assert (await cached.get("/file", **{"If-None-Match": '"v1"'}))[0] == 304
    assert (await cached.get("/file"))[1] == "0123456789"
    assert cached.app.asked["/file"] == 1 and "Range" not in cached.app.seen[0]


async def test_a_new_release_begins_with_pages_of_its_own(cached: Cached) -> None:
    assert (await cached.get())[1] == "one"
    cached.app.text = "two"
    await cached.release(2)
    assert (await cached.get())[1] == "two"


FILES = [
    "/assets/app-3f2a91c0.js",
    "/static/js/main.8d1b0a2f.chunk.js",
    "/assets/index-DiwrgTda.css",
    "/_next/static/x/_m.js",
]


@pytest.mark.parametrize("path", FILES)
async def test_files_with_a_hash_outlive_their_release(cached: Cached, path: str) -> None:
    cached.app.headers = {"Content-Type": "text/css" if path.endswith("css") else "application/javascript"}
    _, _, first = await cached.get(path)
    assert first["Cache-Control"] == "public, max-age=2592000, immutable"
    cached.app.status, cached.app.text = 404, "gone"
    await cached.release(2)
    status, text, headers = await cached.get(path)
    assert (status, text) == (200, "one") and headers["Cache-Control"] == first["Cache-Control"]
    assert cached.app.asked[path] == 1
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=policy(purged=[[path, 9]])))
    assert (await cached.get(path))[0] == 404


async def test_an_apps_own_word_about_a_file_counts(cached: Cached) -> None:
    cached.app.headers = {"Content-Type": "text/css", "Cache-Control": "no-store"}
    for _ in range(2):
        assert (await cached.get(FILES[2]))[2]["Cache-Control"] == "no-store"
    assert cached.app.asked[FILES[2]] == 2
    cached.app.headers = {"Content-Type": "text/css", "Set-Cookie": "a=b"}
    for _ in range(2):
        assert "Cache-Control" not in (await cached.get(FILES[0]))[2]
    assert cached.app.asked[FILES[0]] == 2


async def test_files_may_be_left_to_the_app(cached: Cached) -> None:
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=policy(files=False)))
    cached.app.headers = {"Content-Type": "text/css"}
    for number in (1, 2):
        assert "Cache-Control" not in (await cached.get(FILES[2]))[2] and cached.app.asked[FILES[2]] == number
    cached.app.headers = {"Content-Type": "text/css", "Cache-Control": DAY}
    await cached.get(FILES[0])
    await cached.release(2)
    assert await cached.said(FILES[0]) == "hit"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "application/xhtml+xml"])
async def test_no_page_of_somebodys_own_is_kept_as_a_file(cached: Cached, kind: str) -> None:
    """Web cache deception: an app that answers any path below /account with the account."""
    cached.app.headers = {"Content-Type": kind}
    for number in (1, 2):
        headers = (await cached.get("/account/x-3f2a91c0.css"))[2]
        assert cached.app.asked["/account/x-3f2a91c0.css"] == number and "Cache-Control" not in headers


@pytest.mark.parametrize(
    "path",
    ["/jquery.min.js", "/js/release2.js", "/img/20241101.jpg", "/deadbeef", "/a-3f2a91c0.html", "/js/App-MyPageTwo.js"],
)
async def test_other_files_are_kept_only_when_the_app_says_so(cached: Cached, path: str) -> None:
    cached.app.headers = {"Content-Type": "image/png"}
    for number in (1, 2):
        assert "Cache-Control" not in (await cached.get(path))[2]
        assert cached.app.asked[path] == number


async def test_purged_paths_are_asked_for_again(cached: Cached) -> None:
    paths = ["/", "/news", "/news/1", "/news/2?page=2", "/about", "/f%C3%BCr"]
    for path in paths:
        await cached.get(path)

    async def kept(**more: Any) -> list[str]:
        await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=policy(**more)))
        before = cached.app.asked.copy()
        for path in paths:
            await cached.get(path)
        return [path for path in paths if cached.app.asked[path] == before[path]]

    assert await kept() == paths
    assert await kept(purged=[["/news/*", 3]]) == ["/", "/news", "/about", "/f%C3%BCr"]
    assert await kept(purged=[["/news/*", 3], ["/für", 4]]) == paths[:5]
    assert await kept(purged=[["/news/*", 3], ["/für", 4]]) == paths
    assert await kept(version=5) == []
    assert await kept(version=5) == paths


async def test_a_namesake_gets_nothing_of_an_older_app(cached: Cached) -> None:
    await cached.get()
    cached.app.text = "two"
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=policy(id="app2")))
    assert (await cached.get())[1] == "two"


async def test_many_at_once_are_one_request_to_the_app(cached: Cached) -> None:
    cached.app.seconds = 0.5
    answers = await asyncio.gather(*(cached.get("/slow") for _ in range(20)))
    assert {text for _, text, _ in answers} == {"one"} and cached.app.asked["/slow"] == 1


async def test_what_is_not_kept_is_not_asked_for_one_by_one(cached: Cached) -> None:
    cached.app.headers, cached.app.seconds = {}, 0.0
    for _ in range(20):  # each worker has to see it once
        await cached.get("/slow")
    cached.app.seconds = 0.5
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(cached.get("/slow") for _ in range(20)))
    assert asyncio.get_running_loop().time() - started < 5, "one after another they take 10 s"


async def test_a_stale_answer_while_the_new_one_is_made(cached: Cached) -> None:
    cached.app.headers = {"Cache-Control": "max-age=1, stale-while-revalidate=60"}
    await cached.get()
    cached.app.text = "two"
    _, text, headers = await cached.once_expired()
    assert (text, headers["Cache-Status"]) == ("one", "paasd; hit; detail=stale")

    async def is_new() -> bool:
        return (await cached.get())[1] == "two"

    await until(is_new)
    assert await cached.bench.edge.in_flight() == {}, "nothing counts as under way for ever"


async def test_a_renewal_is_judged_like_every_answer(cached: Cached) -> None:
    """It is asked for with the headers of whoever came first, who may provoke anything."""

    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        bad = "X-Bad" in request.headers
        headers = {"Cache-Control": "max-age=1, stale-while-revalidate=600"}
        return web.Response(status=400 if bad else 200, text="bad" if bad else "good", headers=headers)

    await cached.release(2, await cached.bench.apps.start(answer))
    assert (await cached.get())[1] == "good"

    async def is_renewed() -> bool:
        return asked > before

    for _ in range(3):
        before = asked
        assert (await cached.once_expired(**{"X-Bad": "1"}))[1] in ("good", "bad")
        await until(is_renewed)
        await cached.bench.in_flight_is({})
        assert (await cached.get())[:2] == (200, "good")


@pytest.mark.parametrize(("said", "allowed"), [(", stale-if-error=60", True), ("", False)])
async def test_a_stale_answer_when_the_app_cannot_be_reached(cached: Cached, said: str, allowed: bool) -> None:
    cached.app.headers = {"Cache-Control": f"max-age=1{said}"}
    await cached.get()
    await cached.release(1, Endpoint("127.0.0.1", 1))
    assert (await cached.once_expired())[0] == (200 if allowed else 502)


@pytest.mark.parametrize("stale", [True, False])
async def test_a_stale_answer_when_the_app_fails(cached: Cached, stale: bool) -> None:
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=policy(stale=stale)))
    cached.app.headers = {"Cache-Control": "max-age=1"}
    await cached.get()
    cached.app.status, cached.app.text = 500, "the app's own page"
    for _ in range(2):
        assert (await cached.once_expired())[:2] == ((200, "one") if stale else (500, "the app's own page"))
    cached.app.status = 200
    assert (await cached.get())[:2] == (200, "the app's own page"), "and errors are never kept"


async def test_an_open_breaker_keeps_renewals_from_the_app_and_lets_old_answers_out(cached: Cached) -> None:
    values = {"breaker.share": "50", "breaker.least": "2", "breaker.time": "60"}
    both = json.loads(policy(stale=True)) | json.loads(policy_text(values))
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=json.dumps(both)))
    cached.app.headers = {"Cache-Control": "max-age=1, stale-while-revalidate=60"}
    await cached.get("/kept")
    cached.app.headers = {"Cache-Control": "max-age=1"}
    await cached.get("/plain")
    await asyncio.sleep(2.1)
    cached.app.status = 500

    async def is_open() -> bool:
        return (await cached.get("/other"))[0] == 503

    await until(is_open)
    before = cached.app.asked.total()
    for path in ("/kept", "/plain"):
        assert (await cached.get(path))[:2] == (200, "one")
    await asyncio.sleep(0.3)
    assert cached.app.asked.total() == before, "not for a renewal either"
    assert (await cached.get("/other"))[0] == 503, "where there is no older answer"


async def test_a_page_may_be_confirmed_by_the_app(cached: Cached) -> None:
    cached.app.headers = {"Cache-Control": "max-age=1", "ETag": '"v1"'}
    await cached.get()
    cached.app.status, cached.app.text = 304, ""
    status, text, headers = await cached.once_expired()
    assert (status, text, headers["Cache-Status"]) == (200, "one", "paasd; fwd=stale; fwd-status=304")
    assert cached.app.seen[-1]["If-None-Match"] == '"v1"'


async def test_during_a_canary_only_files_are_kept(cached: Cached) -> None:
    canary = CanaryRoute((await cached.bench.apps.saying("canary"),), 2, 50)
    await cached.bench.edge.set_route(Route("blog", (cached.endpoint,), 1, canary))
    assert {(await cached.get())[1] for _ in range(20)} == {"one", "canary"}
    assert "Cache-Status" not in (await cached.get())[2]


async def test_a_sleeping_app_is_woken(cached: Cached) -> None:
    await cached.get()
    await cached.bench.edge.set_route(Route("blog", (), 1, hold=5.0))
    wanted, answer = await asyncio.gather(cached.bench.edge.wanted(5), _woken(cached))
    assert wanted == {"blog"} and answer == (200, "one")


async def _woken(cached: Cached) -> tuple[int, str]:
    async def wake() -> None:
        await asyncio.sleep(0.5)
        await cached.release(1)

    answer, _ = await asyncio.gather(cached.get(), wake())
    return answer[0], answer[1]


async def test_what_is_kept_passes_the_other_parts_first(cached: Cached) -> None:
    await cached.get()
    closed = json.loads(policy()) | {"addresses": {"deny": ["127.0.0.1/32"]}}
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=json.dumps(closed)))
    assert (await cached.get())[0] == 403
    rules = json.loads(policy()) | {"headers": {"response": [["set", "X-Added", "yes"]]}}
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=json.dumps(rules)))
    _, text, headers = await cached.get()
    assert (text, headers["X-Added"], headers["Cache-Status"]) == ("one", "yes", "paasd; hit")


async def test_paths_of_other_apps_are_not_kept(cached: Cached) -> None:
    other = App(text="other")
    await cached.bench.serve("other", await cached.bench.apps.start(other.answer))
    routed = json.loads(policy()) | {"routes": [{"prefix": "/api", "app": "other", "strip": False}]}
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=json.dumps(routed)))
    for _ in range(2):
        assert (await cached.get("/api/x"))[1] == "other"
    assert other.asked["/api/x"] == 2


async def test_a_rewritten_path_is_kept_under_the_one_that_was_asked_for(cached: Cached) -> None:
    rules = json.loads(policy()) | {"rewrite": [["/old/*", "/new/*"]]}
    await cached.bench.edge.set_site(Site("blog", (cached.host,), policy=json.dumps(rules)))
    assert [await cached.said("/old/1"), await cached.said("/old/1")] == ["fwd=uri-miss", "hit"]
    assert cached.app.asked == {"/new/1": 1}


async def test_what_members_of_an_app_see_is_not_kept(bench: Bench) -> None:
    app = App()
    both = json.loads(policy()) | {"members": part()}
    await bench.serve("blog", await bench.apps.start(app.answer), policy=json.dumps(both))
    blog = Browser(bench)
    alice, bob = await blog.session(), await blog.session(member="b2")
    for cookie in (alice, bob, alice):
        answer = await blog.ask("/a", Cookie=cookie)
        assert answer.status == 200 and "Cache-Status" not in answer.headers
    assert app.asked["/a"] == 3 and (await blog.ask("/a")).status == 401


async def test_very_long_addresses_are_not_kept(cached: Cached) -> None:
    assert await cached.said("/?" + "a" * 2000) == ""


async def test_kept_answers_survive_a_restart_of_nginx(cached: Cached) -> None:
    await cached.get()
    await cached.bench.edge.stop()
    await cached.bench.edge.start()
    assert await cached.said() == "hit"
