#!/usr/bin/env python3
"""bench names: an edge with 1,000 apps of two host names each.

Printed are what the names cost in memory, how long it takes from adding one to its first answer beside a change that
changes nothing, and how many requests fail while endpoints, certificates and host names change under the load of
clients that keep their connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import _handshakes
import aiohttp
import psutil
from edge import APP_CONFIG, TEMPLATES

from paasd.config import HttpConfig
from paasd.edge_values import Endpoint, Route, Site
from paasd.models import Secret
from paasd.route.edge import Edge
from paasd.route.edge_tls import Served

PORT, TLS_PORT, APP_PORTS = 18480, 18482, (18483, 18484)
APPS = 1000


def site(number: int, *more: str) -> Site:
    return Site(f"app{number}", (f"app{number}.example.org", f"www.app{number}.example.com", *more))


@contextlib.asynccontextmanager
async def app(directory: Path, port: int) -> AsyncIterator[Endpoint]:
    (directory / str(port)).mkdir()
    config = directory / str(port) / "app.conf"
    config.write_text(APP_CONFIG.format(directory=config.parent, port=port))
    process = await asyncio.create_subprocess_exec(
        *("nginx", "-p", str(config.parent), "-e", "stderr", "-c", str(config), "-g", "daemon off;")
    )
    try:
        yield Endpoint("127.0.0.1", port)
    finally:
        process.terminate()
        await process.wait()


def memory(directory: Path) -> float:
    """MB that Nginx has of its own, shared pages counted once."""
    master = psutil.Process(int((directory / "edge" / "nginx.pid").read_text()))
    return float(sum(process.memory_full_info().pss for process in (master, *master.children())) / 1024**2)


async def seconds_to_answer(session: aiohttp.ClientSession, host: str, began: float) -> float:
    while True:
        async with session.get(f"http://127.0.0.1:{PORT}/", headers={"Host": host}) as response:
            if response.status == 200:
                return time.monotonic() - began


async def additions(edge: Edge, rounds: int) -> None:
    """Of a host name, to its first answer."""
    added, looks = [], []
    async with aiohttp.ClientSession() as session:
        for number in range(rounds):
            began = time.monotonic()
            await edge.set_site(site(number))
            looks.append(time.monotonic() - began)
            host, began = f"added{number}.example.net", time.monotonic()
            await edge.set_site(site(number, host))
            added.append(await seconds_to_answer(session, host, began))
    print(
        f"host name added to first answer  {statistics.median(added) * 1000:7.1f} ms (most {max(added) * 1000:.1f} ms)"
    )
    print(f"the same site set again          {statistics.median(looks) * 1000:7.1f} ms")


async def changes(edge: Edge, endpoints: list[Endpoint], seconds: int) -> None:
    """200 switches of endpoints, 20 certificates, 20 host names, spread over the time of the load."""
    certificates = [_handshakes.certificate([f"secure{number}.example.org"]) for number in range(20)]
    pause = (seconds - 2) / 200
    for number in range(200):
        await edge.set_route(Route("app0", (endpoints[number % 2],), number))
        if number % 10 == 0:
            key, chain = certificates[number // 10]
            name = f"secure{number // 10}.example.org"
            await edge.tls.put(Served(f"bench-{number}", (name,), Secret(key + chain)))
        if number % 10 == 5:
            await edge.set_site(site(number, f"late{number}.example.net"))
        await asyncio.sleep(pause)


async def under_load(edge: Edge, endpoints: list[Endpoint], seconds: int) -> bool:
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", "-c32", f"-d{seconds}s", "-H", "Host: app0.example.org", f"http://127.0.0.1:{PORT}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    await changes(edge, endpoints, seconds)
    output = (await asyncio.wait_for(wrk.communicate(), seconds + 30))[0].decode()
    done = re.search(r"(\d+) requests in", output)
    errors = [int(number) for number in re.findall(r"(?:connect|read|write|timeout|responses:?) (\d+)", output)]
    failed = sum(errors)
    print(f"{done[1] if done else 0} requests, {failed} failed during 200 switches, 20 certificates, 20 host names")
    return done is not None and failed == 0


async def main(rounds: int, seconds: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="paasd-bench-") as name:
        directory = Path(name)
        http = HttpConfig(address="127.0.0.1", port=PORT, https_port=TLS_PORT)
        edge = Edge(directory / "edge", TEMPLATES, http)
        async with app(directory, APP_PORTS[0]) as first, app(directory, APP_PORTS[1]) as second:
            try:
                await edge.start()
                empty, began = memory(directory), time.monotonic()
                await edge.sync_sites([site(number) for number in range(APPS)])
                print(f"{APPS} apps, {2 * APPS} names told in {time.monotonic() - began:.2f} s")
                for number in range(APPS):
                    await edge.set_route(Route(f"app{number}", (first,), 1))
                print(f"memory per 1,000 names, routes included  {(memory(directory) - empty) / 2:.2f} MB")
                await additions(edge, rounds)
                return await under_load(edge, [first, second], seconds)
            finally:
                await edge.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=20, help="of load")
    options = parser.parse_args()
    raise SystemExit(0 if asyncio.run(main(options.rounds, options.seconds)) else 1)
