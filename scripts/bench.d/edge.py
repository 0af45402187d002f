#!/usr/bin/env python3
"""bench edge: what routing and counting cost, against the same Nginx with a static proxy_pass.

One Nginx has three sites: (a) ours, in the common server block, (b) one written by hand with a static upstream and an
ordinary access log, (c) the same without a log. wrk asks them in turn, in many short rounds; printed are the medians,
and the medians of the ratios within a round, which what else the machine does disturbs least. CPU is that of the Nginx
under test alone, from /proc, so it says more than requests/s where wrk and the app share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import _handshakes
import psutil

from paasd.config import HttpConfig
from paasd.edge_values import Endpoint, Route, Site
from paasd.route.edge import Edge

TEMPLATES = Path(__file__).resolve().parents[2] / "nginx"
PORT, APP_PORT, TLS_PORT = 18380, 18381, 18382
NAMES = {"a": "edge", "b": "static, access log", "c": "static, no log"}
TARGETS = {"b": 1.0, "c": 0.92}

APP_CONFIG = """
worker_processes 1;
pid "{directory}/app.pid";
error_log "{directory}/app.log" error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "hello, world\\n"; }}
    }}
}}
"""


STATIC_SITE = """
upstream {name} {{ server 127.0.0.1:{app_port}; }}
server {{
    listen 127.0.0.1:{port};
    server_name {name}.localhost;
    {log}
    error_page 419 = @stream;
    error_page 502 504 = @failed;
    location / {{
        if ($paasd_stream) {{ return 419; }}
        proxy_pass http://{name};
    }}
    location @stream {{ proxy_buffering off; proxy_pass http://{name}; }}
    location @failed {{ return 502; }}
}}
"""
"""What one writes by hand for an app: no Lua in it."""


async def start_app(directory: Path) -> asyncio.subprocess.Process:
    """The app behind the edge: another Nginx with one worker and a small body in memory."""
    config = directory / "app.conf"
    config.write_text(APP_CONFIG.format(directory=directory, port=APP_PORT))
    return await asyncio.create_subprocess_exec(
        "nginx", "-p", str(directory), "-e", "stderr", "-c", str(config), "-g", "daemon off;"
    )


async def prepare_edge(edge: Edge, directory: Path) -> None:
    await edge.start()
    await edge.set_site(Site("bench-a", ("bench-a.localhost",)))
    logs = {"b": f'access_log "{directory}/access.log";', "c": ""}
    for letter, log in logs.items():
        name = f"bench-{letter}"
        text = STATIC_SITE.format(name=name, app_port=APP_PORT, port=PORT, log=log)
        (directory / "edge" / "sites" / f"{name}.conf").write_text(text)
    await _handshakes.prepare(edge, directory, TLS_PORT)
    await edge.set_site(Site("bench-reload", ("bench-reload.localhost",), body_size="1m"))
    await edge.set_route(Route("bench-a", (Endpoint("127.0.0.1", APP_PORT),), 1))


def cpu_seconds(directory: Path) -> float:
    """CPU that the edge's workers have used."""
    master = psutil.Process(int((directory / "edge" / "nginx.pid").read_text()))
    times = [worker.cpu_times() for worker in master.children()]
    return sum(time.user + time.system for time in times)


async def load(letter: str, seconds: int) -> int:
    """Requests that wrk had answered. Fails on any error."""
    url = f"http://127.0.0.1:{PORT}/"
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t2", "-c32", f"-d{seconds}s", "-H", f"Host: bench-{letter}.localhost", url),
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await asyncio.wait_for(wrk.communicate(), seconds + 30))[0].decode()
    done = re.search(r"(\d+) requests in", output)
    if done is None or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"wrk had errors:\n{output}")
    return int(done[1])


async def measure(directory: Path, rounds: int, seconds: int) -> dict[str, list[tuple[float, float]]]:
    """(requests/s, CPU µs a request) of each round, by site."""
    results: dict[str, list[tuple[float, float]]] = {letter: [] for letter in NAMES}
    for letter in NAMES:
        await load(letter, 1)
    for number in range(rounds):
        order = [*NAMES][number % 3 :] + [*NAMES][: number % 3]
        for letter in order:
            before = cpu_seconds(directory)
            requests = await load(letter, seconds)
            used = cpu_seconds(directory) - before
            results[letter].append((requests / seconds, used / requests * 1e6))
    return results


def report(results: Mapping[str, list[tuple[float, float]]]) -> bool:
    rate = {letter: statistics.median(r for r, _ in rounds) for letter, rounds in results.items()}
    cpu = {letter: statistics.median(c for _, c in rounds) for letter, rounds in results.items()}
    for letter, name in NAMES.items():
        print(f"{letter} {name:<20} {rate[letter]:>8.0f} requests/s {cpu[letter]:>7.2f} µs CPU a request")
    met = True
    for letter, target in TARGETS.items():
        pairs = list(zip(results["a"], results[letter], strict=True))
        by_rate = statistics.median(ours[0] / other[0] for ours, other in pairs)
        by_cpu = statistics.median(other[1] / ours[1] for ours, other in pairs)
        met &= min(by_rate, by_cpu) >= target
        print(f"a against {letter}: requests/s {by_rate:.3f}, requests per CPU {by_cpu:.3f} (target >= {target})")
    return met


async def main(rounds: int, shakes: int, seconds: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="paasd-bench-") as name:
        directory = Path(name)
        app = await start_app(directory)
        http = HttpConfig(address="127.0.0.1", port=PORT, https_port=TLS_PORT)
        edge = Edge(directory / "edge", TEMPLATES, http)
        try:
            await prepare_edge(edge, directory)
            met = report(await measure(directory, rounds, seconds)) if rounds else True
            return await _handshakes.measure(TLS_PORT, shakes, partial(cpu_seconds, directory)) and met
        finally:
            await edge.stop()
            app.terminate()
            await app.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--shakes", type=int, default=60, help="rounds of TLS handshakes")
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    options = parser.parse_args()
    raise SystemExit(0 if asyncio.run(main(options.rounds, options.shakes, options.seconds)) else 1)
