"""Passive ejection: instances that fail are left out for a while, and come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from aiohttp import web

from paasd.edge_values import Endpoint, Route
from paasd.gateway.ejection import Ejection, parse_ejections
from tests.integration.edge.conftest import Bench, until
from tests.integration.edge.policies import set_policy
from tests.ports import free_port


@dataclass
class Instance:
    name: str
    status: int = 200
    asked: int = 0
    delay: float = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        await asyncio.sleep(self.delay)
        return web.Response(status=self.status, text=self.name)


async def serve(bench: Bench, *instances: Instance, **settings: str) -> tuple[str, list[Endpoint]]:
    endpoints = [await bench.apps.start(instance.answer) for instance in instances]
    host = await bench.serve("blog", *endpoints)
    await set_policy(bench, "blog", **{"eject__failures": "3", "eject__time": "2s", **settings})
    return host, endpoints


async def ejections(bench: Bench) -> list[Ejection]:
    return parse_ejections(await bench.edge._control.get("ejections"))


async def ask(bench: Bench, host: str, times: int) -> Counter[int]:
    return Counter([(await bench.visitor.get(host))[0] for _ in range(times)])


async def ejected(bench: Bench, host: str, endpoint: Endpoint) -> None:
    async def is_out() -> bool:
        await bench.visitor.get(host)
        return [one.endpoint for one in await ejections(bench)] == [str(endpoint)]

    await until(is_out)


# By ewma it would get hardly any requests before it has failed often enough.
@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "hash"])
async def test_an_instance_that_fails_goes_and_comes_back(bench: Bench, algorithm: str) -> None:
    good, bad = Instance("good"), Instance("bad", 503)
    settings = {"balance__algorithm": algorithm, "balance__hash": "header:X-Tenant"}
    host, (_, endpoint) = await serve(bench, good, bad, **settings)

    async def is_out() -> bool:
        for number in range(10):
            await bench.visitor.get(host, **{"X-Tenant": f"key-{number}"})
        return bool(await ejections(bench))

    await until(is_out)
    (found,) = await ejections(bench)
    assert (found.app, found.release, found.endpoint, found.times) == ("blog", 1, str(endpoint), 1)
    await asyncio.sleep(0.15)  # all workers know
    asked = bad.asked
    bad.status = 200
    while await ejections(bench):
        answers = await ask(bench, host, 5)
        assert bad.asked == asked or not await ejections(bench)
        assert answers == Counter({200: 5})

    async def is_back() -> bool:
        for number in range(10):
            await bench.visitor.get(host, **{"X-Tenant": f"key-{number}"})
        return bad.asked > asked

    await until(is_back)


async def test_each_ejection_is_longer(bench: Bench) -> None:
    good, bad = Instance("good"), Instance("bad", 502)
    host, (_, endpoint) = await serve(bench, good, bad, eject__time="1s", eject__failures="1")
    for times in (1, 2, 3):
        await ejected(bench, host, endpoint)
        (found,) = await ejections(bench)
        assert found.times == times and times - 1 < found.seconds <= times

        async def is_over() -> bool:
            return not await ejections(bench)

        await until(is_over)


async def test_one_success_begins_the_count_anew(bench: Bench) -> None:
    flaky = Instance("flaky")
    host, _ = await serve(bench, flaky, Instance("good"), eject__failures="4")
    for number in range(120):
        flaky.status = 200 if number % 3 else 503
        await bench.visitor.get(host)
    assert await ejections(bench) == [] and flaky.asked >= 50


async def test_failures_far_apart_do_not_count(bench: Bench) -> None:
    bad = Instance("bad", 503)
    host, _ = await serve(bench, bad, Instance("good"), eject__failures="20", eject__window="1s")
    for _ in range(3):
        await ask(bench, host, 20)
        await asyncio.sleep(1.2)
    assert await ejections(bench) == [] and bad.asked >= 25


@pytest.mark.parametrize(("count", "out"), [(1, 0), (2, 1), (3, 1), (5, 2)])
async def test_never_more_than_half_are_out(bench: Bench, count: int, out: int) -> None:
    instances = [Instance(str(number), 503) for number in range(count)]
    host, _ = await serve(bench, *instances, eject__failures="2", eject__time="1m")
    assert await ask(bench, host, 60) == Counter({503: 60})
    assert len(await ejections(bench)) == out
    await asyncio.sleep(0.15)
    before = [instance.asked for instance in instances]
    await ask(bench, host, 30)
    idle = sum(instance.asked == asked for instance, asked in zip(instances, before, strict=True))
    assert idle == out


async def test_only_chosen_failures_count(bench: Bench) -> None:
    bad = Instance("bad", 503)
    host, (_, endpoint) = await serve(bench, Instance("good"), bad, eject__on="502,connect")
    await ask(bench, host, 40)
    assert await ejections(bench) == []
    bad.status = 502
    await ejected(bench, host, endpoint)


async def test_silence_counts(bench: Bench) -> None:
    stuck = Instance("stuck", delay=30)
    host, (_, endpoint) = await serve(bench, Instance("good"), stuck, eject__on="timeout", timeout__read="0.3s")
    await ejected(bench, host, endpoint)


async def test_a_dead_instance_counts_though_nobody_notices(bench: Bench) -> None:
    dead = Endpoint("127.0.0.1", free_port())
    host = await bench.serve("blog", dead, await bench.apps.saying("alive"))
    await set_policy(bench, "blog", eject__failures="1", eject__time="1m")
    assert await ask(bench, host, 20) == Counter({200: 20})
    assert [one.endpoint for one in await ejections(bench)] == [str(dead)]


async def test_an_ejection_outlives_changes_of_others_but_not_its_release(bench: Bench) -> None:
    bad = Instance("bad", 503)
    host, endpoints = await serve(bench, Instance("good"), bad, eject__time="5m")
    await ejected(bench, host, endpoints[1])
    await bench.serve("other", await bench.apps.saying("other"))
    await asyncio.sleep(0.15)
    asked = bad.asked
    await ask(bench, host, 20)
    assert bad.asked == asked
    # The same address, of a new release.
    await bench.edge.set_route(Route("blog", tuple(endpoints), 2))
    await ask(bench, host, 8)
    assert bad.asked > asked


async def test_clients_that_leave_prove_nothing(bench: Bench) -> None:
    stuck = Instance("stuck", delay=30)
    host, _ = await serve(bench, stuck, Instance("other", delay=30), eject__failures="1")
    for _ in range(6):
        task = asyncio.create_task(bench.visitor.get(host))
        await asyncio.sleep(0.1)
        task.cancel()
    await bench.in_flight_is({})
    assert await ejections(bench) == []


@pytest.mark.parametrize("settings", [{}, {"retries__on": "connect,timeout"}, {"retries__on": "502,503"}])
async def test_hanging_up_is_a_502_and_no_refused_connection(bench: Bench, settings: dict[str, str]) -> None:
    async def read_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    rude = await bench.apps.raw(read_and_hang_up)
    host = await bench.serve("blog", rude, await bench.apps.saying("good"))
    await set_policy(bench, "blog", eject__failures="2", eject__on="connect,503", **settings)
    await ask(bench, host, 30)
    assert await ejections(bench) == []
    await set_policy(bench, "blog", eject__failures="2", eject__on="502", **settings)
    await ejected(bench, host, rude)
