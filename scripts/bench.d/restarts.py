"""What comes back, and when: the daemon with a hundred apps that it has to look through, and the engine with fifty.

The daemon is killed and started while every app is asked; no request may fail. The engine, one of the benchmark's own,
is killed and started: how long until it has its containers answering again is what the edge is compared with. At last,
the daemon's CPU with a hundred apps whose health is checked all the time."""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGKILL

import psutil
from _common import Box, ask, eventually, machine, ok, started_box, verdict

from tests.engine import Engine
from tests.images import TEST_IMAGE

RECONCILED, COMEBACK, IDLE = 2.0, 1.5, 2.0
"""Targets: seconds, ratio, per cent of a core."""
CHECKS = {"web": [{"type": "liveness", "path": "/"}, {"type": "readiness", "path": "/"}]}


def fill(box: Box, count: int) -> list[str]:
    """One app with health checks, then clones of it."""
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "index.html": "bench"}
    files |= {"Procfile": "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n"}
    ok(box.push(box.repository({**files, "app.json": json.dumps({"healthchecks": CHECKS})}), "bench-1"))
    for number in range(2, count + 1):
        ok(box.ssh("apps:clone", "bench-1", f"bench-{number}"))
    eventually(lambda: not box.differences(), 120)
    return [f"bench-{number}" for number in range(1, count + 1)]


@contextmanager
def asked(box: Box, apps: list[str]) -> Iterator[list[str]]:
    """All apps in turn, all the time. Gives the list that failures are added to."""
    end, failures, count = threading.Event(), [], [0]

    def ask_all() -> None:
        while not end.is_set():
            for app in apps:
                count[0] += 1
                if "bench" not in ask("127.0.0.1", box.http_port, f"{app}.localhost"):
                    failures.append(app)

    thread = threading.Thread(target=ask_all, daemon=True)
    thread.start()
    try:
        yield failures
    finally:
        end.set()
        thread.join(60)
        print(f"  {count[0]} requests meanwhile, {len(failures)} failed")


def daemon_restarted(box: Box) -> float:
    """Seconds from the start of the process until its API finds nothing left to put right."""
    box.kill()
    started = time.monotonic()
    box.start()
    eventually(lambda: not box.differences(), 60)
    return time.monotonic() - started


def all_answer(ask_one: Callable[[str], str], of: list[str]) -> float:
    """The moment when each has answered once."""
    waiting = set(of)
    while waiting:
        waiting -= {each for each in waiting if "bench" in ask_one(each)}
        time.sleep(0.01)
    return time.monotonic()


def engine_restarted(engine: Engine, box: Box, apps: list[str]) -> tuple[float, float]:
    """Seconds until all containers answer at their own addresses, and all apps at the edge."""
    addresses = [
        next(iter(container["NetworkSettings"]["Networks"].values()))["IPAddress"]
        for container in engine.request("GET", "/containers/json")
    ]
    assert len(addresses) == len(apps), (len(addresses), len(apps))
    engine.end(SIGKILL)
    started, ends = time.monotonic(), {}
    engine.start()

    def at_edge() -> None:
        ends["edge"] = all_answer(lambda app: ask("127.0.0.1", box.http_port, f"{app}.localhost"), apps)

    thread = threading.Thread(target=at_edge)
    thread.start()
    ends["engine"] = all_answer(lambda address: ask(address, 5000, "floor"), addresses)
    thread.join(300)
    return ends["engine"] - started, ends["edge"] - started


def cpu(box: Box, seconds: int) -> float:
    """Per cent of a core that the daemon takes."""
    assert box.process is not None
    process = psutil.Process(box.process.pid)
    before, started = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = process.cpu_times()
    return 100 * (after.user + after.system - before.user - before.system) / (time.monotonic() - started)


def with_daemon(count: int, rounds: int, seconds: int) -> bool:
    with started_box() as box:
        apps = fill(box, count)
        used = cpu(box, seconds)
        with asked(box, apps) as failures:
            time.sleep(1)
            restarts = [daemon_restarted(box) for _ in range(rounds)]
            time.sleep(1)
        median = statistics.median(restarts)
        met = verdict(f"{count} apps with checks: {used:.2f} % of a core (target at most {IDLE:.0f})", used <= IDLE)
        met &= verdict(f"{count} apps reconciled {median:.2f} s after the start (at most {RECONCILED})", median <= 2)
        return verdict(f"{len(failures)} requests failed (target 0)", not failures) and met


def with_engine(count: int) -> bool:
    engine = Engine()
    try:
        engine.start()
        engine.prepare()
        pool = ".".join(engine.pool.split(".")[:2]) + ".0.0/16"  # the engine's own has room for sixteen projects
        settings = f'docker_host = "unix://{engine.socket}"\n[run]\nfirewall = false\nsubnet_pool = "{pool}"\n'
        with started_box(settings) as box:
            floor, own = engine_restarted(engine, box, fill(box, count))
        text = f"{count} apps answer {own:.2f} s after the engine's restart, its containers {floor:.2f} s"
        return verdict(f"{text}: {own / floor:.2f} (target at most {COMEBACK})", own / floor <= COMEBACK)
    finally:
        engine.remove()


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apps", type=int, default=100)
    parser.add_argument("--engine-apps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--only", choices=["daemon", "engine"])
    options = parser.parse_args()
    print(f"restarts ({machine()}):")
    met = options.only == "engine" or with_daemon(options.apps, options.rounds, options.seconds)
    return (options.only == "daemon" or with_engine(options.engine_apps)) and met


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
