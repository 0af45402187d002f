"""Apps that only their members see: links and sessions."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from aiohttp import web

from paasd.edge_values import Route, Site
from paasd.gateway.policy import KEYS, policy_text
from tests.integration.edge.conftest import Bench
from tests.integration.edge.members import (
    COOKIE,
    HTML,
    MEMBERS,
    OTHER_KEY,
    WANTED,
    Browser,
    change,
    part,
    seen,
    token,
)
from tests.integration.edge.raw import exchange


@pytest.fixture
async def blog(bench: Bench) -> Browser:
    await bench.serve("blog", await bench.apps.start(seen), policy=json.dumps({"members": part()}))
    return Browser(bench)


async def test_who_has_no_session_is_told_what_to_type(blog: Browser) -> None:
    page = await blog.ask(Accept=HTML)
    assert page.status == 401 and "ssh paasd@box.test apps:sign-in blog</pre>" in page.text
    assert page.headers["Cache-Control"] == "no-store" and page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["WWW-Authenticate"] == 'Paasd realm="blog"'
    problem = await blog.ask(Accept="application/json")
    assert problem.status == 401 and WANTED not in problem.cookies
    assert json.loads(problem.text)["detail"] == "Sign in: ssh paasd@box.test apps:sign-in blog"
    for method in ("POST", "HEAD", "OPTIONS", "DELETE"):
        assert (await blog.ask(method=method)).status == 401


async def test_a_link_opens_a_session_once(blog: Browser) -> None:
    link = token()
    answer = await blog.enter(link)
    assert answer.status == 303 and answer.headers["Location"] == "/"
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
    cookie, *attributes = answer.cookies[COOKIE].split("; ")
    assert attributes == ["Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax"]
    told = json.loads((await blog.ask("/a?b=c", Cookie=cookie)).text)
    assert told == {"path": "/a?b=c", "cookie": [], "x-paasd-user": ["alice"], "x-paasd-key": ["laptop"]}
    again = await blog.enter(link)
    assert again.status == 401 and COOKIE not in again.cookies and "That link was used" in again.text
    assert (await blog.ask(Cookie=cookie)).status == 200


async def test_a_session_is_for_one_host_name_and_one_app(bench: Bench, blog: Browser) -> None:
    both = ("blog.test", "www.blog.test")
    await bench.edge.set_site(Site("blog", both, policy=json.dumps({"members": part()})))
    policy = json.dumps({"members": part(OTHER_KEY)})
    await bench.serve("shop", await bench.apps.start(seen), policy=policy)
    cookie, www = await blog.session(), Browser(bench, "www.blog.test")
    assert (await www.ask(Cookie=cookie)).status == 401
    assert "apps:sign-in blog --host www.blog.test</pre>" in (await www.ask()).text
    assert (await www.enter(token())).status == 401
    assert (await www.ask(Cookie=await www.session())).status == 200
    shop = Browser(bench, "shop.test")
    assert (await shop.ask(Cookie=cookie)).status == 401
    assert (await shop.enter(token(host="shop.test"))).status == 401, "signed with the other app's key"
    assert (await shop.enter(token(host="shop.test", key=OTHER_KEY))).status == 303


async def test_what_ends_a_session(bench: Bench, blog: Browser) -> None:
    cookie, bob = await blog.session(), await blog.session(member="b2")
    left, link = {"a1": MEMBERS["a1"]}, token("b2")
    await change(bench, members=left)
    assert (await blog.ask(Cookie=bob)).status == 401 and (await blog.enter(link)).status == 401
    assert (await blog.ask(Cookie=cookie)).status == 200
    old = f"{COOKIE}={token(purpose='session', age=900)}"
    assert (await blog.ask(Cookie=old)).status == 200
    await change(bench, seconds=600)
    assert [(await blog.ask(Cookie=each)).status for each in (old, cookie)] == [401, 200]
    await change(bench, key=OTHER_KEY)
    assert (await blog.ask(Cookie=cookie)).status == 401


async def test_signing_out(blog: Browser) -> None:
    cookie, other = await blog.session(), await blog.session()
    for origin in ("cross-site", "same-site"):
        kept = await blog.ask("/.paasd/sign-out", Cookie=cookie, Sec_Fetch_Site=origin)
        assert kept.status == 303 and not kept.cookies
    assert (await blog.ask("/.paasd/sign-out", method="POST")).status == 303, "whoever is not signed in"
    gone = await blog.ask("/.paasd/sign-out", Cookie=cookie, Sec_Fetch_Site="same-origin")
    assert gone.status == 303 and gone.headers["Location"] == "/"
    assert gone.cookies[COOKIE].startswith(f"{COOKIE}=; Path=/; Max-Age=0;")
    assert [(await blog.ask(Cookie=each)).status for each in (cookie, other)] == [401, 200]
    await change(blog.bench, seconds=30 * 86400)
    assert (await blog.ask(Cookie=cookie)).status == 401


@pytest.mark.parametrize("path", ["/", "/a/b?c=d%20e&f", "/caf%C3%A9", "/a//b", "/%2F%2Fevil.test", "/@evil.test"])
async def test_visitors_go_where_they_wanted(blog: Browser, path: str) -> None:
    page = await blog.ask(path, Accept=HTML)
    cookie = page.cookies[WANTED]
    assert cookie.endswith("; Path=/; Max-Age=900; HttpOnly; SameSite=Lax")
    answer = await blog.enter(token(), Cookie=cookie.split(";")[0])
    assert answer.status == 303 and answer.headers["Location"] == path
    assert answer.cookies[WANTED].startswith(f"{WANTED}=; Path=/; Max-Age=0")


async def test_root_has_no_key(bench: Bench, blog: Browser) -> None:
    await change(bench, members={"root": ["root"]})
    told = json.loads((await blog.ask(Cookie=await blog.session(member="root"), X_Paasd_Key="laptop")).text)
    assert told["x-paasd-user"] == ["root"] and "x-paasd-key" not in told


async def test_the_app_gets_its_own_cookies_only(blog: Browser) -> None:
    cookie = await blog.session()
    for given, expected in (
        (f"a=b; {cookie}; {WANTED}=x; c=d=e", ["a=b; c=d=e"]),
        (f"{cookie}; __Host-{COOKIE}=x", []),
        (f"{COOKIE}=junk; {cookie};a=1", ["a=1"]),
        (f"my_{COOKIE}=1; {cookie}; {COOKIE}2=2", [f"my_{COOKIE}=1; {COOKIE}2=2"]),
    ):
        assert json.loads((await blog.ask(Cookie=given)).text)["cookie"] == expected
    lines = f"Cookie: a=b\r\nCookie: {cookie}\r\nCookie: c=d\r\n"
    answer = await exchange(blog.bench.http.port, f"GET / HTTP/1.1\r\nHost: blog.test\r\n{lines}\r\n".encode())
    assert b'"cookie": ["a=b; c=d"]' in answer


async def test_websockets_and_event_streams(bench: Bench, blog: Browser) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers["X-Paasd-User"])
        return socket

    await bench.serve("blog", await bench.apps.start(echo), policy=json.dumps({"members": part()}))
    for headers in ({"Accept": "text/event-stream"}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
        assert (await blog.ask(**headers)).status == 401
    headers = {"Host": "blog.test", "Cookie": await blog.session(), "X-Paasd-User": "admin"}
    async with bench.visitor.session.ws_connect(bench.visitor.url(), headers=headers) as socket:
        assert await socket.receive_str() == "alice"


async def test_the_answer_to_a_challenge_passes(bench: Bench, blog: Browser) -> None:
    path = "/.well-known/acme-challenge/token"
    assert (await blog.ask(path)).status == 401
    await bench.edge.tls.set_challenge("token", "token.print")
    assert (await blog.ask(path)).text == "token.print"


async def test_passwords_come_on_top(bench: Bench, blog: Browser) -> None:
    users = KEYS["auth.basic"].check("alice:correct-horse")
    policy = policy_text({"auth.basic": users}, {"members": part()})
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=policy))
    basic = "Basic " + base64.b64encode(b"alice:correct-horse").decode()
    cookie = await blog.session()
    tries = [{}, {"Authorization": basic}, {"Cookie": cookie}, {"Cookie": cookie, "Authorization": basic}]
    assert [(await blog.ask(**headers)).status for headers in tries] == [401, 401, 401, 200]


async def test_sticky_sessions_and_other_cookies_go_on(bench: Bench) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(request.url.port) + str(request.headers.getall("Cookie", [])))

    ends = [await bench.apps.start(answer) for _ in range(3)]
    policy = policy_text({"balance.sticky": "on"}, {"members": part()})
    await bench.serve("blog", *ends, policy=policy)
    blog = Browser(bench)
    cookie = await blog.session()
    first = await blog.ask(Cookie=cookie)
    sticky = first.cookies["paasd_instance"].split(";")[0]
    for _ in range(9):
        again = await blog.ask(Cookie=f"{cookie}; {sticky}")
        assert again.text.split("[")[0] == first.text.split("[")[0] and "paasd_instance" not in again.cookies


async def test_a_service_is_asked_about_members_only(bench: Bench, blog: Browser) -> None:
    """It learns who they are, and does not get their session."""
    asked = []

    async def decide(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.getall("X-Paasd-User", []), request.headers.getall("Cookie", [])))
        return web.Response(headers={"Remote-User": "somebody"})

    await bench.serve("decide", await bench.apps.start(decide))
    values = {"auth.forward": "http://decide.test/", "auth.forward-headers": "remote-user"}
    policy = policy_text(values, {"members": part()})
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=policy))
    assert (await blog.ask(X_Paasd_User="admin")).status == 401 and asked == []
    told = json.loads((await blog.ask(Cookie=f"{await blog.session()}; a=b", X_Paasd_User="admin")).text)
    assert told["x-paasd-user"] == ["alice"] and asked == [(["alice"], ["a=b"])]


async def test_a_sleeping_app_is_woken_by_members_only(bench: Bench, blog: Browser) -> None:
    cookie, endpoint = await blog.session(), await bench.apps.start(seen)
    await bench.edge.set_route(Route("blog", (), 1, hold=20.0))
    assert (await blog.ask()).status == 401 and await bench.edge.wanted(0) == set()
    waiting = asyncio.create_task(blog.ask(Cookie=cookie, X_Paasd_User="admin"))
    assert await bench.edge.wanted(10) == {"blog"}
    await bench.edge.set_route(Route("blog", (endpoint,), 1))
    assert json.loads((await waiting).text)["x-paasd-user"] == ["alice"]


async def test_apps_with_a_server_block_of_their_own(bench: Bench, blog: Browser) -> None:
    policy = json.dumps({"members": part()})
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=policy, body_size="1m"))
    assert (await blog.ask()).status == 401
    assert (await blog.ask(Cookie=await blog.session())).status == 200


async def test_what_another_app_answers_is_for_members_too(bench: Bench, blog: Browser) -> None:
    await bench.serve("api", await bench.apps.start(seen))
    routes = [{"prefix": "/api", "app": "api", "strip": False}]
    policy = policy_text({}, {"members": part(), "routes": routes})
    await bench.edge.set_site(Site("blog", ("blog.test",), policy=policy))
    assert (await blog.ask("/api/x")).status == 401
    told = json.loads((await blog.ask("/api/x", Cookie=await blog.session())).text)
    assert told == {"path": "/api/x", "cookie": [], "x-paasd-user": ["alice"], "x-paasd-key": ["laptop"]}
