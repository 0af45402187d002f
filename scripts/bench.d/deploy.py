"""What a deployment costs beside building and starting, how soon a switch is seen, and scaling from one instance to ten
against ten `docker run` at once. Rounds alternate; prints medians.

`scripts/bench rollback`, `wake`, `jobs` and `restarts` measure what else deployments promise."""

from __future__ import annotations

import argparse
import concurrent.futures
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from _common import Box, FirstAnswer, ask, eventually, machine, ok, ratio, spread, started_box, verdict

from tests.box import Repository, docker

APP = "bench"
OVERHEAD, EFFECT, SCALING = 0.150, 0.020, 1.2
"""Targets: seconds, seconds, ratio."""
MANY = 10
_WORK = ("building", "starting", "checking")
"""Phases that are the app's own work, or the engine's."""


def push(box: Box, repository: Repository, number: int) -> tuple[float, float]:
    """Seconds of the deployment beside build and start, and seconds from the switch to the first new answer."""
    text = f"answer {number}"
    example = (repository.path / "app.py").read_text()
    repository.commit({"app.py": example.replace(f"answer {number - 1}", text).replace("Hello", text)})
    watcher = FirstAnswer(box.http_port, f"{APP}.localhost", text)
    ok(box.push(repository, APP))
    seen = watcher.at() + time.time() - time.monotonic()
    newest = box.json("deployments", APP)[0]
    phases = box.json("deployments:info", APP, str(newest["number"]))["phases"]
    began = {phase["phase"]: datetime.fromisoformat(phase["at"]).timestamp() for phase in phases}
    work = sum(phase["seconds"] for phase in phases if phase["phase"] in _WORK)
    return _until_live(phases, began) - work, seen - began["switching"]


def _until_live(phases: Sequence[dict[str, Any]], began: dict[str, float]) -> float:
    """Draining comes after the release is live."""
    end = next(began[name] for name in ("draining", "live") if name in began)
    return end - began[phases[0]["phase"]]


def scale_up(box: Box) -> float:
    """Seconds until all ten are live, from one."""
    ok(box.ssh("ps:scale", APP, "web=1"))
    eventually(lambda: len(box.containers()) == 1, 60)
    started = time.monotonic()
    ok(box.ssh("ps:scale", APP, f"web={MANY}"))
    return time.monotonic() - started


def run_many(box: Box) -> float:
    """Seconds until nine more `docker run` of the same image, started at once, all answer."""
    config = docker("GET", f"/containers/{box.containers()[0]['Id']}/json")["Config"]
    entrypoint, *arguments = config["Entrypoint"]
    options = ["-d", "--init", "-e", "PORT=5000", "-u", config["User"], "--label", f"paasd.instance={box.label}"]
    command = ["docker", "run", *options, "--label", "paasd.role=floor", "--entrypoint", entrypoint, config["Image"]]
    made: list[str] = []

    def run_one(_: int) -> None:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=120)
        made.append(done.stdout.strip())
        networks = docker("GET", f"/containers/{made[-1]}/json")["NetworkSettings"]["Networks"]
        address = next(network["IPAddress"] for network in networks.values())
        while "answer" not in ask(address, 5000, "floor"):
            time.sleep(0.004)

    started = time.monotonic()
    try:
        with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
            list(pool.map(run_one, range(MANY - 1)))
        return time.monotonic() - started
    finally:
        for container in made:
            docker("DELETE", f"/containers/{container}?force=1&v=1")


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scalings", type=int, default=5)
    options = parser.parse_args()
    print(f"deployments, {options.rounds} pushes and {options.scalings} scalings ({machine()}):")
    with started_box() as box:
        repository = box.repository(example="python")
        pushes = [push(box, repository, number) for number in range(1, options.rounds + 2)][1:]
        ok(box.ssh("resource:limit", APP, "--memory", "256m", "--cpu", "1"))
        own, floor = [], []
        for _ in range(options.scalings):
            own.append(scale_up(box))
            ok(box.ssh("ps:scale", APP, "web=1"))
            eventually(lambda: len(box.containers()) == 1, 60)
            floor.append(run_many(box))
    overhead, effect = ([each[part] for each in pushes] for part in (0, 1))
    print(f"  scaling from 1 to {MANY} {spread(own)}, {MANY - 1} docker run at once {spread(floor)}")
    value = ratio(own, floor)
    met = _below("deploy beside build and start", overhead, OVERHEAD)
    met &= _below("switch to the first new answer", effect, EFFECT)
    return verdict(f"scaling against docker run {value:.2f} (target at most {SCALING})", value <= SCALING) and met


def _below(what: str, seconds: Sequence[float], target: float) -> bool:
    median = sorted(seconds)[len(seconds) // 2]
    return verdict(f"{what}: {spread(seconds)} (target at most {target:.3f} s)", median <= target)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
