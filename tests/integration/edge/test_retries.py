"""Retries on another instance, their budget, and time-outs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from aiohttp import web

from paasd.edge_values import Endpoint, InFlight
from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy
from tests.integration.edge.test_ejection import Instance
from tests.ports import free_port

ANY = pytest.mark.parametrize("status", [502, 503, 504])


async def serve(bench: Bench, instances: Sequence[Instance], **settings: str) -> str:
    host = await bench.serve("blog", *[await bench.apps.start(instance.answer) for instance in instances])
    await set_policy(bench, "blog", **settings)
    return host


async def ask(bench: Bench, host: str, method: str = "GET", data: bytes = b"") -> tuple[int, str]:
    async with bench.visitor.session.request(
        method, bench.visitor.url(), headers={"Host": host}, data=data or None
    ) as response:
        return response.status, await response.text()


@ANY
async def test_idempotent_requests_are_tried_elsewhere(bench: Bench, status: int) -> None:
    bad, good = Instance("bad", status), Instance("good")
    host = await serve(bench, (bad, good), retries__on=f"connect,{status}", retries__budget="100%")
    for method in ("GET", "PUT", "DELETE"):
        for _ in range(8):
            assert await ask(bench, host, method, b"x" * 100_000 if method == "PUT" else b"") == (200, "good")
    assert bad.asked >= 8
    assert await bench.edge.in_flight() == {}


@ANY
async def test_others_are_never_sent_again(bench: Bench, status: int) -> None:
    instances = [Instance(str(number), status) for number in range(3)]
    host = await serve(bench, instances, retries__on="connect,timeout,502,503,504", retries__budget="100")
    for method in ("POST", "PATCH"):
        for _ in range(6):
            answer, text = await ask(bench, host, method, b"x" * 100)
            assert answer == status and text in "012"
    assert sum(instance.asked for instance in instances) == 12


@ANY
async def test_the_last_answer_passes_with_its_body(bench: Bench, status: int) -> None:
    instances = [Instance(str(number), status) for number in range(3)]
    host = await serve(bench, instances, retries__on=str(status), retries__count="1", retries__budget="100")
    for _ in range(5):
        answer, text = await ask(bench, host)
        assert answer == status and text in "012"
    assert sum(instance.asked for instance in instances) == 10


@ANY
async def test_what_was_not_asked_for_passes_untouched(bench: Bench, status: int) -> None:
    instances = [Instance(str(number), status) for number in range(3)]
    others = ",".join(str(other) for other in (502, 503, 504) if other != status)
    host = await serve(bench, instances, retries__on=f"connect,{others}")
    for _ in range(6):
        answer, text = await ask(bench, host)
        assert answer == status and text in "012"
    assert sum(instance.asked for instance in instances) == 6


async def test_each_try_is_another_instance(bench: Bench) -> None:
    instances = [Instance(str(number), 503) for number in range(4)]
    host = await serve(bench, instances, retries__on="503", retries__count="3", retries__budget="100")
    assert (await ask(bench, host))[0] == 503
    assert [instance.asked for instance in instances] == [1] * 4


async def test_the_budget_limits_retries(bench: Bench) -> None:
    bad = [Instance(f"bad {number}", 503) for number in range(2)]
    host = await serve(bench, bad, retries__on="503", retries__budget="10")
    answers = Counter([await ask(bench, host) for _ in range(200)])
    retries = sum(instance.asked for instance in bad) - 200
    # A tenth, and the three of each worker that are always allowed.
    assert 3 <= retries <= 20 + 2 * 8
    assert {status for status, _ in answers} == {503} and {text for _, text in answers} <= {"bad 0", "bad 1"}
    await set_policy(bench, "blog", retries__on="503", retries__budget="0")
    before = sum(instance.asked for instance in bad)
    await asyncio.gather(*(ask(bench, host) for _ in range(10)))
    assert sum(instance.asked for instance in bad) == before + 10


async def test_no_retries_at_all(bench: Bench) -> None:
    dead, good = Endpoint("127.0.0.1", free_port()), await bench.apps.saying("good")
    host = await bench.serve("blog", dead, good)
    await set_policy(bench, "blog", retries__count="0")
    assert {status for status, _ in [await ask(bench, host) for _ in range(8)]} == {200, 502}
    await set_policy(bench, "blog", retries__count="1")
    assert [await ask(bench, host) for _ in range(8)] == [(200, "good")] * 8


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)])
async def test_an_instance_that_hangs_up(bench: Bench, method: str, again: bool) -> None:
    received = 0

    async def read_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received += bool(await reader.readuntil(b"\r\n\r\n"))

    host = await bench.serve("blog", *[await bench.apps.raw(read_and_hang_up) for _ in range(3)])
    await set_policy(bench, "blog", retries__on="connect,502", retries__budget="100")
    assert (await ask(bench, host, method))[0] == 502
    assert received == (3 if again else 1)
    await set_policy(bench, "blog", retries__on="connect,503", retries__budget="100")
    assert (await ask(bench, host, method))[0] == 502
    assert received == (4 if again else 2)


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)])
async def test_a_time_out_is_tried_elsewhere(bench: Bench, method: str, again: bool) -> None:
    stuck, good = Instance("stuck", delay=20), Instance("good")
    host = await serve(bench, (stuck, good), retries__on="timeout", retries__budget="100", timeout__read="300ms")
    answers = Counter([(await ask(bench, host, method))[0] for _ in range(6)])
    assert answers[200] == 6 if again else answers[504] >= 1 and answers[200] >= 1
    assert stuck.asked >= 1


async def test_silence_of_one_of_many_is_told_as_such(bench: Bench) -> None:
    instances = [Instance(str(number), delay=20) for number in range(3)]
    host = await serve(bench, instances, timeout__read="200ms")
    assert (await ask(bench, host))[0] == 504
    assert sum(instance.asked for instance in instances) == 1


async def test_time_outs_are_live(bench: Bench) -> None:
    host = await serve(bench, (Instance("late", delay=0.6),), timeout__read="200ms")
    began = time.monotonic()
    assert (await ask(bench, host))[0] == 504
    assert time.monotonic() - began < 10
    await set_policy(bench, "blog", timeout__read="20s")
    assert await ask(bench, host) == (200, "late")
    await set_policy(bench, "blog", timeout__connect="200ms", timeout__send="3s")
    assert await ask(bench, host) == (200, "late")


async def test_a_connection_that_is_not_made_in_time(bench: Bench) -> None:
    # No such host in the network for documentation, so nobody ever answers or refuses.
    host = await bench.serve("blog", Endpoint("192.0.2.1", 9), await bench.apps.saying("good"))
    await set_policy(bench, "blog", timeout__connect="200ms")
    began = time.monotonic()
    for _ in range(4):
        assert await ask(bench, host) == (200, "good")
    assert time.monotonic() - began < 4.5  # each would take 5 s


async def test_streams_have_a_time_out_of_their_own(bench: Bench) -> None:
    async def mute(request: web.Request) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            await asyncio.sleep(1)
            return web.Response(text="late")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await asyncio.sleep(float(message.data))
            await socket.send_str("answer")
        return socket

    endpoint = await bench.apps.start(mute)
    host = await bench.serve("blog", endpoint)
    await set_policy(bench, "blog", timeout__stream="2s", timeout__read="200ms")
    assert (await ask(bench, host))[0] == 504
    async with bench.visitor.session.ws_connect(bench.visitor.url(), headers={"Host": host}) as socket:
        await socket.send_str("0.6")
        assert await socket.receive_str() == "answer"
        assert await bench.edge.in_flight() == {str(endpoint): InFlight(streams=1)}
        await socket.send_str("20")
        message = await asyncio.wait_for(socket.receive(), 10)
        assert message.data in (None, 1006)
    await bench.in_flight_is({})
