"""Names and passwords at the edge."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web

from paasd.edge_values import Route, Site
from paasd.gateway.policy import KEYS, policy_text
from paasd.models import Secret
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy
from tests.tls import Authority

USERS = {"auth.basic": "alice:correct-horse bob:pass:wörd"}


def basic(user: str, password: str, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.fixture
def addresses() -> Iterator[str]:
    return iter(f"127.4.0.{number}" for number in range(1, 250))


async def closed(bench: Bench, app: str = "blog") -> str:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"inside {request.headers.getall('Authorization', [])}")

    host = await bench.serve(app, await bench.apps.start(answer))
    await set_policy(bench, app, **USERS)
    return host


async def raw(bench: Bench, text: str, source: str = "127.0.0.1") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.http.port, local_addr=(source, 0))
    try:
        writer.write(text.encode("latin-1"))
        return (await asyncio.wait_for(reader.read(), 10)).decode("latin-1")
    finally:
        writer.close()


async def test_the_right_password_gets_in_and_the_app_does_not_see_it(bench: Bench) -> None:
    host = await closed(bench)
    for headers in (
        basic("alice", "correct-horse"),
        basic("bob", "pass:wörd"),
        basic("alice", "correct-horse", "bAsIc"),
    ):
        for _ in range(3):
            assert await bench.visitor.get(host, **headers) == (200, "inside []")
    one = basic("alice", "correct-horse")["Authorization"]
    twice = f"Authorization: {one}\r\nAuthorization: Basic c2VjcmV0\r\nConnection: close\r\n\r\n"
    answer = await raw(bench, f"GET / HTTP/1.1\r\nHost: {host}\r\n{twice}")
    assert answer.startswith("HTTP/1.1 400") or "inside []" in answer


async def test_without_it_there_is_a_401(bench: Bench, addresses: Iterator[str]) -> None:
    host = await closed(bench)
    async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
        assert response.status == 401 and "inside" not in await response.text()
        assert response.headers["WWW-Authenticate"] == 'Basic realm="blog", charset="UTF-8"'
    wrong = [
        *(
            basic("alice", "correct-hors"),
            basic("alice", ""),
            basic("", "correct-horse"),
            basic("carol", "correct-horse"),
        ),
        *(basic("alice", "correct-horse\x00"), basic("alice\x00", "correct-horse"), basic("ALICE", "correct-horse")),
        *(basic("alice", "x" * 3000), basic("bob", "pass"), basic("alice", "correct-horse", "Bearer")),
    ]
    lines = [f"Authorization: {each['Authorization']}" for each in wrong]
    lines += ["Authorization: Basic", "Authorization: Basic %%%", "Authorization: Basic =", "Authorization:", "X: y"]
    for line in lines:
        asked = f"GET / HTTP/1.1\r\nHost: {host}\r\n{line}\r\nConnection: close\r\n\r\n"
        answer = await raw(bench, asked, next(addresses))
        assert answer.startswith("HTTP/1.1 401"), (line, answer[:200])
        assert "inside" not in answer


async def test_no_way_leads_around_it(bench: Bench) -> None:
    host = await closed(bench)
    for headers in ({"Accept": "text/event-stream"}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
        assert (await bench.visitor.get(host, **headers))[0] == 401
    for path in ("/.well-known/acme-challenge/token", "/x/../y", "//", "/?a"):
        assert (await bench.visitor.get(host, path))[0] == 401
    for method in ("POST", "HEAD", "OPTIONS", "PURGE"):
        async with bench.visitor.session.request(method, bench.visitor.url(), headers={"Host": host}) as response:
            assert response.status == 401
    await bench.edge.set_route(Route("blog", (), 1, hold=20.0))
    assert (await bench.visitor.get(host))[0] == 401, "nobody wakes an app who may not ask it"
    assert await bench.edge.wanted(0.5) == set()


async def test_the_policy_is_that_of_the_app_whose_host_is_asked(bench: Bench) -> None:
    """A path that another app answers is closed like the rest; that app under its own name has its own policy."""
    host, other = await closed(bench), await bench.serve("other", await bench.apps.saying("other"))
    routes = '{"prefix":"/api","app":"other"}'
    site = policy_of(USERS, routes)
    await bench.edge.set_site(Site("blog", (host,), policy=site))
    assert (await bench.visitor.get(host, "/api/x"))[0] == 401
    assert await bench.visitor.get(host, "/api/x", **basic("alice", "correct-horse")) == (200, "other")
    assert await bench.visitor.get(other, "/api/x") == (200, "other")


def policy_of(settings: dict[str, str], route: str) -> str:
    text = policy_text({key: KEYS[key].check(value) for key, value in settings.items()})
    return text[:-1] + f',"routes":[{route}]}}'


async def test_a_new_password_ends_the_old_one_at_once(bench: Bench) -> None:
    host = await closed(bench)
    assert (await bench.visitor.get(host, **basic("alice", "correct-horse")))[0] == 200
    await set_policy(bench, "blog", **{"auth.basic": "alice:battery-staple"})
    assert (await bench.visitor.get(host, **basic("alice", "correct-horse")))[0] == 401
    assert (await bench.visitor.get(host, **basic("alice", "battery-staple")))[0] == 200


async def test_guessing_is_slow_and_harms_only_who_guesses(bench: Bench) -> None:
    host = await closed(bench)
    right = basic("alice", "correct-horse")
    assert (await bench.visitor.get(host, **right))[0] == 200
    found = [(await bench.visitor.get(host, **basic("alice", f"guess-{number}")))[0] for number in range(15)]
    assert found[:10] == [401] * 10 and set(found[10:]) <= {401, 429} and found.count(429) >= 3
    assert (await bench.visitor.get(host, **right))[0] in (200, 429), "who is known to this worker gets in"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.4.1.1", 0))) as session:
        async with session.get(bench.visitor.url(), headers={"Host": host, **right}) as response:
            assert response.status == 200


async def test_many_guesses_hold_up_nobody_else(bench: Bench) -> None:
    host, other = await closed(bench), await bench.serve("other", await bench.apps.saying("other"))

    async def guess(number: int) -> int:
        source = f"127.4.2.{1 + number % 200}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(source, 0))) as session:
            headers = {"Host": host, **basic("alice", f"guess-{number}")}
            async with session.get(bench.visitor.url(), headers=headers) as response:
                return response.status

    guesses = [asyncio.create_task(guess(number)) for number in range(200)]
    slowest = 0.0
    for _ in range(20):
        before = time.monotonic()
        assert await bench.visitor.get(other) == (200, "other")
        slowest = max(slowest, time.monotonic() - before)
        await asyncio.sleep(0.02)
    found = await asyncio.gather(*guesses)
    assert set(found) <= {401, 503} and 401 in found
    assert slowest < 1
    assert (await bench.visitor.get(host, **basic("alice", "correct-horse")))[0] == 200


async def test_clients_that_leave_while_they_are_checked(bench: Bench) -> None:
    """Over HTTP/1.1 and, with streams that end, over HTTP/2."""
    host = await closed(bench)
    key, chain = Authority.new().leaf((host,))
    await bench.edge.tls.put(Served("one", (host,), Secret(key + chain)))
    port = bench.http.https_port
    for number in range(30):
        source = f"127.4.3.{1 + number}"
        guess = basic("alice", f"guess-{number}")["Authorization"]
        _, writer = await asyncio.open_connection("127.0.0.1", bench.http.port, local_addr=(source, 0))
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: {guess}\r\n\r\n".encode())
        await asyncio.sleep(0.005)
        writer.transport.abort()
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sk", "--http2", "-m", "0.05", "--interface", source, "--resolve", f"{host}:{port}:127.0.0.1"),
            *("-o", "/dev/null", "-u", f"alice:guess-{number}", f"https://{host}:{port}/"),
        )
        await curl.wait()
    assert (await bench.visitor.get(host, **basic("alice", "correct-horse")))[0] == 200
    assert "signal" not in bench.edge._nginx.layout.error_log.read_text()
