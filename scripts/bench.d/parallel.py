"""Ten apps pushed one after another, then ten pushed at once; all must succeed. Meanwhile the API's list of apps is
asked again and again: its latency says whether the daemon stays responsive."""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from _common import Box, machine, ok, percentile, started_box, timed, verdict

from tests.box import Repository

APPS = 10
LATENCY_TARGET = 0.1


class Latency:
    """Asks `GET /api/v1/apps` twenty times a second while the block runs."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []

    def __enter__(self) -> Latency:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.05):
            self.seconds.append(timed(lambda: self._box.api("GET", "/apps")))

    def __str__(self) -> str:
        median, slow = percentile(self.seconds, 0.5), percentile(self.seconds, 0.95)
        return f"{1000 * median:.0f} ms median, {1000 * slow:.0f} ms p95, {1000 * max(self.seconds):.0f} ms at most"


def repositories(box: Box, prefix: str, count: int) -> dict[str, Repository]:
    """Examples that differ in one line, so that each has an image of its own."""
    made = {f"{prefix}-{number}": box.repository(example="python") for number in range(count)}
    for name, repository in made.items():
        source = (repository.path / "app.py").read_text()
        repository.commit({"app.py": source.replace("Hello", f"Hello of {name}")})
    return made


def push_all(box: Box, apps: dict[str, Repository], workers: int) -> float:
    def push(name: str) -> None:
        ok(box.push(apps[name], name))

    started = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        for result in [pool.submit(push, name) for name in apps]:
            result.result()
    seconds = time.monotonic() - started
    wrong = [name for name in apps if f"Hello of {name}" not in box.get(name).text]
    if wrong:
        raise SystemExit(f"pushed, but not served: {', '.join(wrong)}")
    return seconds


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apps", type=int, default=APPS)
    count = parser.parse_args().apps
    print(f"{count} apps pushed ({machine()}):")
    with started_box() as box:
        push_all(box, repositories(box, "first", 1), 1)  # warms the cache of packages
        with Latency(box) as alone:
            one_by_one = push_all(box, repositories(box, "row", count), 1)
        with Latency(box) as busy:
            at_once = push_all(box, repositories(box, "crowd", count), count)
    print(f"  one after another {one_by_one:.1f} s; GET /api/v1/apps meanwhile {alone}")
    print(f"  at once           {at_once:.1f} s; GET /api/v1/apps meanwhile {busy}")
    print(f"  ratio {at_once / one_by_one:.2f}, {count} of {count} succeeded")
    slow = percentile(busy.seconds, 0.95)
    return verdict(f"API p95 {1000 * slow:.0f} ms (target at most {1000 * LATENCY_TARGET:.0f})", slow <= LATENCY_TARGET)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
