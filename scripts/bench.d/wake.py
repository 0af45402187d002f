"""The first request to a sleeping app until it is answered, against `docker start` of a container of the same image
until its port answers. Rounds alternate; prints medians and the ratio.

The floor pays for a docker command, as a person would type it; the same over the engine's API, without any client
process, is printed for information. What the request costs when the app is awake is printed beside it."""

from __future__ import annotations

import argparse
import subprocess
import time

from _common import Box, FirstAnswer, ask, machine, ok, ratio, spread, started_box, timed, verdict

from tests.box import docker

APP = "bench"
TARGET = 1.3
TEXT = "Hello"


def deploy(box: Box) -> None:
    ok(box.push(box.repository(example="python"), APP))
    ok(box.ssh("sleep:set", APP, "after=1h", "hold=60s"))


def wake(box: Box) -> float:
    """Seconds that the request takes which finds the app asleep."""
    ok(box.ssh("sleep:now", APP))
    time.sleep(0.3)
    return timed(lambda: _answer(box))


def _answer(box: Box) -> None:
    if TEXT not in ask("127.0.0.1", box.http_port, f"{APP}.localhost"):
        raise SystemExit("the sleeping app did not answer")


def floor_container(box: Box) -> str:
    """The same image, command and limits as the app's instance, made by hand; its label has it removed."""
    [found] = [c for c in box.containers() if c["Labels"].get("paasd.role") == "instance"]
    seen = docker("GET", f"/containers/{found['Id']}/json")
    config, host = seen["Config"], seen["HostConfig"]
    same = ("Memory", "NanoCpus", "CapDrop", "SecurityOpt", "PidsLimit", "LogConfig")
    body = {
        "Image": config["Image"],
        "Entrypoint": config["Entrypoint"],
        "User": config["User"],
        "Env": ["PORT=5000"],
        "Labels": {"paasd.instance": box.label, "paasd.role": "floor"},
        "HostConfig": {"Init": True} | {key: host[key] for key in same},
    }
    return str(docker("POST", "/containers/create", body)["Id"])


def typed_start(container: str) -> float:
    started = time.monotonic()
    subprocess.run(["docker", "start", container], capture_output=True, check=True, timeout=60)
    return _until_answer(container, started)


def api_start(container: str) -> float:
    started = time.monotonic()
    docker("POST", f"/containers/{container}/start")
    return _until_answer(container, started)


def _until_answer(container: str, started: float) -> float:
    networks = docker("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]
    address = next(network["IPAddress"] for network in networks.values())
    seconds = FirstAnswer(5000, "floor", TEXT, address=address).at() - started
    docker("POST", f"/containers/{container}/stop?t=5")
    return seconds


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    print(f"waking from zero to the first answer, {rounds} rounds ({machine()}):")
    own: list[float] = []
    typed: list[float] = []
    direct: list[float] = []
    awake: list[float] = []
    with started_box() as box:
        deploy(box)
        floor = floor_container(box)
        for _ in range(rounds + 1):
            own.append(wake(box))
            awake.append(timed(lambda: _answer(box)))
            typed.append(typed_start(floor))
            direct.append(api_start(floor))
    own, typed, direct, awake = own[1:], typed[1:], direct[1:], awake[1:]  # the first round warms up
    print(f"  paasd, the request that wakes {spread(own)}, awake {spread(awake)}")
    print(f"  docker start and port         {spread(typed)}")
    print(f"  engine API and port (for information) {spread(direct)}, ratio {ratio(own, direct):.2f}")
    value = ratio(own, typed)
    return verdict(f"ratio to docker start {value:.2f} (target at most {TARGET})", value <= TARGET)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
