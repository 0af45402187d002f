"""Memory and CPU of the daemon while nothing happens: with no app, then with fifty running ones."""

from __future__ import annotations

import argparse
import time

import psutil
from _common import Box, eventually, machine, ok, started_box, verdict

TARGETS = {0: 90, 50: 130}
"""MB of resident memory, by number of apps."""
CPU_TARGET = 1.0
"""Per cent of one core."""
SERVER = """FROM paasd/python:3.13
WORKDIR /app
COPY index.html /app/
CMD ["python3", "-m", "http.server", "5000"]
"""


def fill(box: Box, count: int) -> None:
    """One app, then clones of it: the same image in projects, networks and sites of their own."""
    repository = box.repository({"Dockerfile": SERVER, "index.html": "small\n"})
    ok(box.push(repository, "bench-1"))
    for number in range(2, count + 1):
        ok(box.ssh("apps:clone", "bench-1", f"bench-{number}"))


def answering(box: Box, count: int) -> int:
    return sum(box.get(f"bench-{number}").status == 200 for number in range(1, count + 1))


def settled(box: Box) -> None:
    """Until nothing retires or starts any more."""
    eventually(lambda: not box.differences(), 60)
    time.sleep(3)


def measure(box: Box, seconds: int) -> tuple[float, float]:
    """MB resident, and per cent of a core over `seconds`."""
    assert box.process is not None
    process = psutil.Process(box.process.pid)
    before, started = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return process.memory_info().rss / 1e6, 100 * used / (time.monotonic() - started)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apps", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    print(f"the daemon at rest, {options.seconds} s ({machine()}):")
    met = True
    with started_box() as box:
        for count in (0, options.apps):
            if count:
                fill(box, count)
                print(f"  {answering(box, count)} of {count} apps answer")
            settled(box)
            memory, cpu = measure(box, options.seconds)
            target = TARGETS.get(count, TARGETS[50])
            met &= verdict(f"{count} apps: {memory:.0f} MB resident (target at most {target})", memory <= target)
            met &= verdict(f"{count} apps: {cpu:.2f} % of a core (target at most {CPU_TARGET:.0f})", cpu <= CPU_TARGET)
    return met


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
