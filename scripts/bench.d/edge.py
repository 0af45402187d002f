#!/usr/bin/env python3
"""bench edge: what routing, rules and the cache cost, against the same Nginx configured by hand.

One Nginx has sites of ours, in the common server block, and sites written by hand: a static upstream with an ordinary
access log, and without; with a rate limit, ejection and header rules as Nginx has them; with `proxy_cache`. wrk asks
them in turn, in many short rounds; printed are the medians, and the medians of the ratios within a round, which what
else the machine does disturbs least. CPU is that of the Nginx under test alone, from /proc, so it says more than
requests/s where wrk and the app share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import _handshakes
import psutil

from paasd.config import HttpConfig
from paasd.edge_values import Endpoint, Route, Site
from paasd.gateway.policy import KEYS, policy_text
from paasd.route.edge import Edge

TEMPLATES = Path(__file__).resolve().parents[2] / "nginx"
PORT, APP_PORT, TLS_PORT = 18380, 18381, 18382
RULES = {
    "limit.rate": KEYS["limit.rate"].check("10000/s burst 100000"),
    "breaker.share": "50",
    "header.request": "set X-Tenant {app}; remove X-Secret",
    "header.response": "set X-Frame-Options DENY; remove X-Powered-By",
}
HAND_RULES = """
    limit_req zone=bench burst=100000 nodelay;
    proxy_set_header X-Tenant bench;
    proxy_set_header X-Secret "";
    add_header X-Frame-Options DENY always;
    proxy_hide_header X-Powered-By;
"""
HAND_CACHE = """
    proxy_cache bench_kept;
    proxy_cache_key "$scheme $paasd_host $request_uri";
    proxy_cache_valid 200 1h;
    proxy_cache_lock on;
    proxy_cache_revalidate on;
    proxy_cache_background_update on;
"""


@dataclass(frozen=True)
class Measured:
    """One site that is asked: ours with a policy, or lines written by hand."""

    name: str
    policy: str = ""
    http: str = ""
    lines: str | None = None
    path: str = "/"


SITES = {
    "a": Measured("edge"),
    "b": Measured("by hand, access log", lines='access_log "{directory}/access.log"; proxy_cache off;'),
    "c": Measured("by hand, no log", lines="proxy_cache off;"),
    "d": Measured("edge, rules", policy=policy_text(RULES)),
    "e": Measured(
        "by hand, rules",
        http="limit_req_zone $binary_remote_addr zone=bench:10m rate=10000r/s;",
        lines=f'access_log "{{directory}}/access.log"; proxy_cache off; {HAND_RULES}',
    ),
    "f": Measured("edge, cache", policy=policy_text({}, {"cache": {"id": "bench", "version": 0}}), path="/kept"),
    "g": Measured(
        "by hand, cache",
        http='proxy_cache_path "{directory}/cache" levels=1:2 keys_zone=bench_kept:10m use_temp_path=off;',
        lines=f'access_log "{{directory}}/access.log"; {HAND_CACHE}',
        path="/kept",
    ),
}
PAIRS = (("a", "b", 1.0), ("a", "c", 0.92), ("d", "e", 0.85), ("f", "g", 0.9))
"""Of which site against which other, and what the ratio must be."""

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
        location /kept {{ add_header Cache-Control max-age=86400; return 200 "hello, world\\n"; }}
    }}
}}
"""


HAND_SITE = """
{http}
upstream {name} {{ server 127.0.0.1:{app_port} {upstream}; }}
server {{
    listen 127.0.0.1:{port};
    server_name {name}.localhost;
    {lines}
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
    for letter, site in SITES.items():
        name, host = f"bench-{letter}", f"bench-{letter}.localhost"
        if site.lines is None:
            await edge.set_site(Site(name, (host,), policy=site.policy))
            await edge.set_route(Route(name, (Endpoint("127.0.0.1", APP_PORT),), 1))
        else:
            http, lines = (text.replace("{directory}", str(directory)) for text in (site.http, site.lines))
            text = HAND_SITE.format(
                name=name, app_port=APP_PORT, port=PORT, http=http, lines=lines, upstream="max_fails=5 fail_timeout=10s"
            )
            (directory / "edge" / "sites" / f"{name}.conf").write_text(text)
    await _handshakes.prepare(edge, directory, TLS_PORT)
    await edge.set_site(Site("bench-reload", ("bench-reload.localhost",), body_size="1m"))


def cpu_seconds(directory: Path) -> float:
    """CPU that the edge's workers have used."""
    master = psutil.Process(int((directory / "edge" / "nginx.pid").read_text()))
    times = [worker.cpu_times() for worker in master.children()]
    return sum(time.user + time.system for time in times)


async def load(letter: str, seconds: int) -> int:
    """Requests that wrk had answered. Fails on any error."""
    url = f"http://127.0.0.1:{PORT}{SITES[letter].path}"
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t2", "-c32", f"-d{seconds}s", "-H", f"Host: bench-{letter}.localhost", url),
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await asyncio.wait_for(wrk.communicate(), seconds + 30))[0].decode()
    done = re.search(r"(\d+) requests in", output)
    if done is None or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"wrk had errors:\n{output}")
    return int(done[1])


async def measure(directory: Path, letters: str, rounds: int, seconds: int) -> dict[str, list[tuple[float, float]]]:
    """(requests/s, CPU µs a request) of each round, by site."""
    results: dict[str, list[tuple[float, float]]] = {letter: [] for letter in letters}
    for letter in letters:
        await load(letter, 1)
    for number in range(rounds):
        turn = number % len(letters)
        for letter in letters[turn:] + letters[:turn]:
            before = cpu_seconds(directory)
            requests = await load(letter, seconds)
            used = cpu_seconds(directory) - before
            results[letter].append((requests / seconds, used / requests * 1e6))
    return results


def report(results: Mapping[str, list[tuple[float, float]]]) -> bool:
    for letter, rounds in results.items():
        rate, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{letter} {SITES[letter].name:<20} {rate:>8.0f} requests/s {cpu:>7.2f} µs CPU a request")
    met = True
    for one, other, target in PAIRS:
        if one not in results or other not in results:
            continue
        pairs = list(zip(results[one], results[other], strict=True))
        by_rate = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
        by_cpu = statistics.median(theirs[1] / ours[1] for ours, theirs in pairs)
        met &= min(by_rate, by_cpu) >= target
        print(f"{one} against {other}: requests/s {by_rate:.3f}, requests per CPU {by_cpu:.3f} (target >= {target})")
    return met


async def main(letters: str, rounds: int, shakes: int, seconds: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="paasd-bench-") as name:
        directory = Path(name)
        app = await start_app(directory)
        http = HttpConfig(address="127.0.0.1", port=PORT, https_port=TLS_PORT)
        edge = Edge(directory / "edge", TEMPLATES, http)
        try:
            await prepare_edge(edge, directory)
            met = report(await measure(directory, letters, rounds, seconds)) if rounds else True
            if shakes:
                met &= await _handshakes.measure(TLS_PORT, shakes, partial(cpu_seconds, directory))
            return met
        finally:
            await edge.stop()
            app.terminate()
            await app.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", default="".join(SITES), help="which of those that are printed, by letter: abc")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--shakes", type=int, default=60, help="rounds of TLS handshakes")
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    options = parser.parse_args()
    if not options.sites or set(options.sites) - set(SITES):
        parser.error(f"sites are {', '.join(SITES)}")
    raise SystemExit(0 if asyncio.run(main(options.sites, options.rounds, options.shakes, options.seconds)) else 1)
