"""`ssh … rollback APP` to the first old answer through the edge, against `docker run` of the same image until its port
answers. Rounds alternate; prints medians and the ratio.

Both sides are what a person types, so both pay for a client process: ssh there, the docker command here. The same
container made over the engine's API, without any client process, is printed for information. The edge is asked for its
answer every few milliseconds during all of them, since that load slows a small machine down."""

from __future__ import annotations

import argparse
import subprocess
import time

from _common import Box, FirstAnswer, eventually, machine, ok, ratio, spread, started_box, verdict

from tests.box import docker

APP = "bench"
TARGET = 1.3
TEXTS = ("first release", "second release")


def deploy_two(box: Box) -> None:
    repository = box.repository(example="python")
    example = (repository.path / "app.py").read_text()
    for text in TEXTS:
        repository.commit({"app.py": example.replace("Hello", text)})
        ok(box.push(repository, APP))


def rollback(box: Box, expected: str) -> float:
    """Seconds from the start of the command until the edge serves the other release."""
    watcher = FirstAnswer(box.http_port, f"{APP}.localhost", expected)
    started = time.monotonic()
    ok(box.ssh("rollback", APP))
    return watcher.at() - started


def running_image(box: Box) -> tuple[str, str, list[str], str]:
    """The box's label, which makes its clean-up remove the floor too; image, command and user of the new instance."""
    newest = max(box.containers(), key=lambda container: container["Created"])
    config = docker("GET", f"/containers/{newest['Id']}/json")["Config"]
    return f"paasd.instance={box.label}", config["Image"], config["Entrypoint"], config["User"]


def docker_run(label: str, image: str, command: list[str], user: str, expected: str) -> float:
    entrypoint, *arguments = command
    options = ["-d", "--init", "-e", "PORT=5000", "-u", user, "--entrypoint", entrypoint, "--label", label]
    started = time.monotonic()
    done = subprocess.run(
        ["docker", "run", *options, image, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return _until_answer(done.stdout.strip(), started, expected)


def api_run(label: str, image: str, command: list[str], user: str, expected: str) -> float:
    name, _, value = label.partition("=")
    body = {"Image": image, "Entrypoint": command, "User": user, "Env": ["PORT=5000"], "HostConfig": {"Init": True}}
    body["Labels"] = {name: value}
    started = time.monotonic()
    container = docker("POST", "/containers/create", body)["Id"]
    docker("POST", f"/containers/{container}/start")
    return _until_answer(container, started, expected)


def _until_answer(container: str, started: float, expected: str) -> float:
    try:
        networks = docker("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]
        address = next(network["IPAddress"] for network in networks.values())
        return FirstAnswer(5000, "floor", expected, address=address).at() - started
    finally:
        docker("DELETE", f"/containers/{container}?force=1&v=1")


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    print(f"rollback to the first old answer, {rounds} rounds ({machine()}):")
    own: list[float] = []
    typed: list[float] = []
    direct: list[float] = []
    with started_box() as box:
        deploy_two(box)
        eventually(lambda: len(box.containers()) == 1)
        for number in range(rounds + 1):
            expected = TEXTS[number % 2]
            own.append(rollback(box, expected))
            eventually(lambda: len(box.containers()) == 1)  # what retires is no part of any round
            same = running_image(box)
            load = FirstAnswer(box.http_port, f"{APP}.localhost", "never")
            typed.append(docker_run(*same, expected))
            direct.append(api_run(*same, expected))
            load.cancel()
    own, typed, direct = own[1:], typed[1:], direct[1:]  # the first round warms up
    print(f"  paasd                  {spread(own)}")
    print(f"  docker run             {spread(typed)}")
    print(f"  engine API (for information) {spread(direct)}, ratio {ratio(own, direct):.2f}")
    value = ratio(own, typed)
    return verdict(f"ratio to docker run {value:.2f} (target at most {TARGET})", value <= TARGET)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
