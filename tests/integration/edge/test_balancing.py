"""Which instance a request goes to, by the app's algorithm."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from paasd.edge_values import CanaryRoute, Endpoint, Route
from paasd.models import Secret
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import Bench, until
from tests.integration.edge.policies import set_policy
from tests.ports import free_port
from tests.tls import Authority, handshake

WORKERS = os.cpu_count() or 1


async def three(bench: Bench, **settings: str) -> tuple[str, list[Endpoint]]:
    endpoints = [await bench.apps.saying(text) for text in ("one", "two", "three")]
    host = await bench.serve("blog", *endpoints)
    await set_policy(bench, "blog", **settings)
    return host, endpoints


async def ask(bench: Bench, host: str, times: int, at_once: int = 1, **headers: str) -> Counter[str]:
    answers: Counter[str] = Counter()

    async def keep_asking(count: int) -> None:
        for _ in range(count):
            status, text = await bench.visitor.get(host, **headers)
            answers[text if status == 200 else str(status)] += 1

    await asyncio.gather(*(keep_asking(times // at_once) for _ in range(at_once)))
    return answers


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "ewma"])
async def test_equal_instances_share_the_requests(bench: Bench, algorithm: str) -> None:
    host, _ = await three(bench, balance__algorithm=algorithm, timeout__read="30s")
    answers = await ask(bench, host, 240, 4)
    assert answers.keys() == {"one", "two", "three"}
    assert min(answers.values()) >= 35


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "ewma", "hash"])
async def test_weights_count(bench: Bench, algorithm: str) -> None:
    endpoints = [await bench.apps.saying(text) for text in ("heavy", "light")]
    host = await bench.serve("blog", Endpoint(endpoints[0].address, endpoints[0].port, 6), endpoints[1])
    await set_policy(bench, "blog", balance__algorithm=algorithm, balance__hash="header:X-Tenant")
    answers: Counter[str] = Counter()
    for number in range(60):
        answers += await ask(bench, host, 5, **{"X-Tenant": f"tenant-{number}"})
    assert answers["heavy"] >= answers["light"] * 2 and answers["light"] >= 1


@pytest.mark.parametrize("algorithm", ["least-connections", "ewma"])
async def test_a_slow_instance_gets_fewer(bench: Bench, algorithm: str) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.Response(text="slow")

    quick = [await bench.apps.saying("quick") for _ in range(2)]
    host = await bench.serve("blog", *quick, await bench.apps.start(slow))
    await set_policy(bench, "blog", balance__algorithm=algorithm)
    answers = await ask(bench, host, 400, 8)
    assert answers.total() == 400 and 1 <= answers["slow"] <= 60
    # Round robin would not see it.
    await set_policy(bench, "blog", timeout__read="10s")
    assert (await ask(bench, host, 60, 20))["slow"] >= 15


async def test_ewma_is_not_taken_in_by_quick_errors(bench: Bench) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async def usual(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.Response(text="usual")

    host = await bench.serve("blog", await bench.apps.start(usual), await bench.apps.start(fail))
    await set_policy(bench, "blog", balance__algorithm="ewma")
    answers = await ask(bench, host, 80, 2)
    assert 1 <= answers["503"] <= 10  # by turns it would be 40


@pytest.mark.hastened("lua/paasd/balancing.lua", "local DECAY = 10 ", "local DECAY = 2 ")
async def test_ewma_forgives_an_instance_that_was_slow(bench: Bench) -> None:
    delay = 0.3

    async def late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(delay)
        return web.Response(text="late")

    async def usual(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.Response(text="usual")

    host = await bench.serve("blog", await bench.apps.start(usual), await bench.apps.start(late))
    await set_policy(bench, "blog", balance__algorithm="ewma")
    await ask(bench, host, 40, 4)
    assert (await ask(bench, host, 20))["late"] <= 2
    delay = 0.0

    async def is_back() -> bool:
        return (await ask(bench, host, 10))["late"] >= 5

    await until(is_back)


async def where(bench: Bench, host: str, keys: range, header: str = "X-Tenant", form: str = "{}") -> dict[int, str]:
    return {key: (await bench.visitor.get(host, **{header: form.format(f"key-{key}")}))[1] for key in keys}


@pytest.mark.parametrize(
    ("source", "header", "form"),
    [("header:X-Tenant", "X-Tenant", "{}"), ("cookie:my-session", "Cookie", "a=b; my-session={}; c=d")],
)
async def test_a_hash_keeps_its_instance_and_moves_as_little_as_it_can(
    bench: Bench, source: str, header: str, form: str
) -> None:
    host, endpoints = await three(bench, balance__algorithm="hash", balance__hash=source)
    keys = range(90)
    before = await where(bench, host, keys, header, form)
    assert min(Counter(before.values()).values()) >= 12 and len(set(before.values())) == 3
    assert await where(bench, host, keys, header, form) == before
    await bench.edge.set_route(Route("blog", (endpoints[0], endpoints[2]), 1))
    after = await where(bench, host, keys, header, form)
    assert {key for key in keys if after[key] != before[key]} == {key for key in keys if before[key] == "two"}
    await bench.edge.set_route(Route("blog", tuple(endpoints), 1))
    assert await where(bench, host, keys, header, form) == before


async def test_a_hash_goes_by_address_when_asked_or_for_want_of_the_header(bench: Bench) -> None:
    host, _ = await three(bench, balance__algorithm="hash", balance__hash="header:X-Tenant")
    usual = await ask(bench, host, 20)
    assert len(usual) == 1
    assert await ask(bench, host, 5, **{"X-Tenant": ""}) == Counter({next(iter(usual)): 5})
    await set_policy(bench, "blog", balance__algorithm="hash")
    assert (await ask(bench, host, 20, **{"X-Tenant": "key-1"})).keys() == usual.keys()
    seen = set()
    for number in range(2, 30):
        async with bench.visitor.session.get(
            bench.visitor.url(), headers={"Host": host, "Connection": "close"}
        ) as response:
            seen.add(await response.text())
        seen.add(await from_address(bench, host, f"127.0.0.{number}"))
    assert len(seen) == 3


async def from_address(bench: Bench, host: str, address: str, request: bytes = b"") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.visitor.port, local_addr=(address, 0))
    writer.write(b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n" + request + b"\r\n")
    answer = (await reader.read()).decode("latin-1")
    writer.close()
    return answer.rpartition("\r\n\r\n")[2]


def answering(text: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """An app that takes any bytes for headers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()

    return serve


@pytest.mark.parametrize(
    "value", [b"x" * 15000, b"\x01\x02\x7f\xff", b"\t", b"'\"; drop", b"..//%00", b"=;=;=", b"\xf0\x9f\x98\x80" * 50]
)
@pytest.mark.parametrize("source", ["header:X-Tenant", "cookie:session"])
async def test_hostile_keys_are_keys_like_others(bench: Bench, source: str, value: bytes) -> None:
    host = await bench.serve("blog", *[await bench.apps.raw(answering(text)) for text in ("one", "two", "three")])
    await set_policy(bench, "blog", balance__algorithm="hash", balance__hash=source, balance__sticky="on")
    for header in (b"X-Tenant: " + value, b"Cookie: session=" + value, b"Cookie: paasd_instance=" + value):
        answers = {await from_address(bench, host, "127.0.0.1", header + b"\r\n") for _ in range(6)}
        assert len(answers) == 1 and answers <= {"one", "two", "three"}
    assert "lua" not in (bench.directory / "logs" / "error.log").read_text()


async def test_keys_that_differ_at_the_end_only_are_different(bench: Bench) -> None:
    host, _ = await three(bench, balance__algorithm="hash", balance__hash="header:Authorization")
    seen = {(await bench.visitor.get(host, Authorization="Bearer " + "x" * 3000 + str(n)))[1] for n in range(20)}
    assert len(seen) == 3


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "ewma", "hash"])
async def test_what_is_down_is_left_out(bench: Bench, algorithm: str) -> None:
    dead = [Endpoint("127.0.0.1", free_port()) for _ in range(2)]
    host = await bench.serve("blog", *dead, await bench.apps.saying("alive"))
    await set_policy(bench, "blog", balance__algorithm=algorithm, balance__hash="header:X-Tenant")
    for number in range(30):
        assert await bench.visitor.get(host, **{"X-Tenant": str(number)}) == (200, "alive")
    assert await bench.edge.in_flight() == {}


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "ewma", "hash"])
async def test_a_canary_gets_its_share(bench: Bench, algorithm: str) -> None:
    stable, canary = await bench.apps.saying("stable"), await bench.apps.saying("canary")
    host = await bench.serve("blog", stable)
    await set_policy(bench, "blog", balance__algorithm=algorithm, balance__hash="header:X-Tenant", timeout__read="9s")
    await bench.edge.set_route(Route("blog", (stable,), 1, CanaryRoute((canary,), 2, 25, "http_x_canary")))
    answers: Counter[str] = Counter()
    for number in range(120):
        answers += await ask(bench, host, 2, **{"X-Tenant": f"key-{number}"})
    assert 30 <= answers["canary"] <= 90 and answers.total() == 240
    assert await ask(bench, host, 5, **{"X-Canary": "always"}) == Counter(canary=5)
    assert await ask(bench, host, 5, **{"X-Canary": "never"}) == Counter(stable=5)


async def test_a_hash_keeps_its_canary(bench: Bench) -> None:
    stable, canary = await bench.apps.saying("stable"), await bench.apps.saying("canary")
    host = await bench.serve("blog", stable)
    await set_policy(bench, "blog", balance__algorithm="hash", balance__hash="header:X-Tenant")
    await bench.edge.set_route(Route("blog", (stable,), 1, CanaryRoute((canary,), 2, 50)))
    first = await where(bench, host, range(30))
    assert set(first.values()) == {"stable", "canary"}
    assert await where(bench, host, range(30)) == first


async def sticky_cookie(bench: Bench, host: str, **headers: str) -> tuple[str, str | None, str]:
    """Text, Set-Cookie, and the cookie as the client would send it."""
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host, **headers}) as response:
        header = response.headers.get("Set-Cookie")
        return await response.text(), header, (header or "").partition(";")[0]


@pytest.fixture
async def no_jar(bench: Bench) -> None:
    bench.visitor.session.cookie_jar.update_cookies = lambda *_: None  # type: ignore[assignment,method-assign]


async def test_sticky_sessions(bench: Bench, no_jar: None) -> None:
    host, endpoints = await three(bench, balance__sticky="on")
    text, header, cookie = await sticky_cookie(bench, host)
    assert header is not None
    name, _, value = cookie.partition("=")
    assert name == "paasd_instance" and len(value) == 16
    assert header.removeprefix(cookie) == "; Path=/; HttpOnly; SameSite=Lax"
    assert all(str(part) not in header for end in endpoints for part in (end.port, end.address))
    for _ in range(10):
        assert await sticky_cookie(bench, host, Cookie=f"a=b; {cookie}") == (text, None, "")
    # Others still go elsewhere, and what is no cookie of ours is nobody's.
    assert len(await ask(bench, host, 30)) == 3
    for wrong in ("", "x", "127.0.0.1:80", "../../etc", value[:-1], value.swapcase()):
        _, again, _ = await sticky_cookie(bench, host, Cookie=f"paasd_instance={wrong}")
        assert again is not None


async def test_a_vanished_instance_is_replaced(bench: Bench, no_jar: None) -> None:
    host, endpoints = await three(bench, balance__sticky="on", balance__algorithm="least-connections")
    names = dict(zip(("one", "two", "three"), endpoints, strict=True))
    text, _, cookie = await sticky_cookie(bench, host)
    await bench.edge.set_route(Route("blog", tuple(end for name, end in names.items() if name != text), 1))
    other, header, new = await sticky_cookie(bench, host, Cookie=cookie)
    assert other != text and header is not None and new != cookie
    assert await sticky_cookie(bench, host, Cookie=new) == (other, None, "")
    # A reload changes nothing.
    await bench.serve("other")
    assert await sticky_cookie(bench, host, Cookie=new) == (other, None, "")


async def test_a_sticky_session_leaves_an_instance_that_refuses(bench: Bench, no_jar: None) -> None:
    dead, alive = Endpoint("127.0.0.1", free_port()), await bench.apps.saying("alive")
    host = await bench.serve("blog", dead, alive)
    await set_policy(bench, "blog", balance__sticky="on")
    for _ in range(4):
        text, header, cookie = await sticky_cookie(bench, host)
        assert text == "alive" and header is not None
        assert await sticky_cookie(bench, host, Cookie=cookie) == (text, None, "")


async def test_sticky_sessions_stay_with_their_canary(bench: Bench, no_jar: None) -> None:
    stable, canary = await bench.apps.saying("stable"), await bench.apps.saying("canary")
    host = await bench.serve("blog", stable)
    await set_policy(bench, "blog", balance__sticky="on")
    await bench.edge.set_route(Route("blog", (stable,), 1, CanaryRoute((canary,), 2, 50, "http_x_canary")))
    cookies = {}
    for _ in range(20):
        text, _, cookie = await sticky_cookie(bench, host)
        cookies[text] = cookie
    for text, cookie in cookies.items():
        for _ in range(6):
            assert await sticky_cookie(bench, host, Cookie=cookie) == (text, None, "")
    text, _, _ = await sticky_cookie(bench, host, Cookie=cookies["stable"], **{"X-Canary": "always"})
    assert text == "canary"
    # Once it is the live release, its sessions go on.
    await bench.edge.set_route(Route("blog", (canary,), 2))
    assert await sticky_cookie(bench, host, Cookie=cookies["canary"]) == ("canary", None, "")


async def test_two_apps_at_one_host_have_a_cookie_each(bench: Bench, no_jar: None) -> None:
    pages = [await bench.apps.saying(f"page {number}") for number in range(3)]
    api = [await bench.apps.saying(f"api {number}") for number in range(3)]
    host = await bench.serve("blog", *pages)
    await bench.serve("api", *api)
    routes = [{"prefix": "/api", "app": "api", "strip": False}]
    await set_policy(bench, "blog", {"routes": routes}, balance__sticky="on")
    await set_policy(bench, "api", balance__sticky="on")
    seen, cookies = {}, []
    for path in ("/", "/api"):
        headers = {"Host": host, "Cookie": "; ".join(cookies)}
        async with bench.visitor.session.get(bench.visitor.url(path), headers=headers) as response:
            seen[path] = await response.text()
            cookies.append(response.headers["Set-Cookie"].partition(";")[0])
    assert [cookie.partition("=")[0] for cookie in cookies] == ["paasd_instance", "paasd_instance_api"]
    for _ in range(6):
        for path, text in seen.items():
            assert (await bench.visitor.get(host, path, Cookie="; ".join(cookies)))[1] == text


async def test_sticky_cookie_over_https_is_secure(bench: Bench, no_jar: None) -> None:
    host, _ = await three(bench, balance__sticky="on")
    key, chain = Authority.new().leaf([host])
    await bench.edge.tls.put(Served("one", (host,), Secret(key + chain), "1.3"))
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    seen = await asyncio.to_thread(handshake, bench.http.https_port, host, send=request)
    assert b"; HttpOnly; SameSite=Lax; Secure\r\n" in seen.answer


WHOLE = {
    "balance__sticky": "on",
    "breaker__share": "90",
    "eject__failures": "3",
    "retries__on": "connect,502,503,504",
    "timeout__read": "30s",
    "timeout__stream": "30s",
}


@pytest.mark.parametrize("algorithm", ["least-connections", "ewma", "hash"])
async def test_switching_under_load_with_a_whole_policy_fails_no_request(bench: Bench, algorithm: str) -> None:
    endpoints = [await bench.apps.saying(text) for text in ("blue", "green", "red")]
    host = await bench.serve("blog", *endpoints)
    await set_policy(bench, "blog", balance__algorithm=algorithm, **WHOLE)
    enough = asyncio.Event()
    answers: Counter[tuple[int, str]] = Counter()

    async def keep_asking() -> None:
        while not enough.is_set():
            answers[await bench.visitor.get(host)] += 1

    clients = [asyncio.create_task(keep_asking()) for _ in range(8)]
    for number in range(40):
        chosen = tuple(endpoint for index, endpoint in enumerate(endpoints) if number % 4 != index)
        await bench.edge.set_route(Route("blog", chosen, number // 10))
        if number % 10 == 0:
            await set_policy(
                bench, "blog", balance__algorithm=algorithm, **{**WHOLE, "eject__failures": str(number + 1)}
            )
        await asyncio.sleep(0.02)
    enough.set()
    await asyncio.gather(*clients)
    assert {status for status, _ in answers} == {200} and answers.total() > 100
    await bench.in_flight_is({})
    assert "lua" not in (bench.directory / "logs" / "error.log").read_text()


async def test_in_flight_returns_to_zero_with_a_whole_policy(bench: Bench) -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def busy(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return web.Response(status=503)

    rude = [await bench.apps.raw(drop) for _ in range(2)]
    host = await bench.serve("blog", *rude, await bench.apps.start(busy), Endpoint("127.0.0.1", free_port()))
    await set_policy(bench, "blog", **{**WHOLE, "breaker__least": "1000"})
    asks = [
        asyncio.create_task(bench.visitor.get(host, "/", **({"Accept": "text/event-stream"} if number % 2 else {})))
        for number in range(60)
    ]
    await asyncio.sleep(0.1)
    for task in asks[::3]:
        task.cancel()
    await asyncio.gather(*asks, return_exceptions=True)
    await bench.in_flight_is({})
    assert "lua" not in (bench.directory / "logs" / "error.log").read_text()
