"""How the processes of an app live: what they may use, commands beside them, and looking into them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps import app as small_app
from tests.box import Box, docker

pytestmark = pytest.mark.engine

MIB = 1024**2
PROCFILE = "web: python3 -u app.py\nworker: sleep 3600\n"


@pytest.fixture(scope="module")
def app(box: Box) -> Iterator[str]:
    files = small_app(Procfile=PROCFILE, app__json='{"formation": {"worker": {"quantity": 1}}}')
    done = box.push(box.repository(files), "life")
    assert done.status == 0, done
    yield "life"
    box.ssh("apps:destroy", "life", "--force")


def ok(box: Box, *words: str, stdin: str = "") -> str:
    done = box.ssh(*words, stdin=stdin)
    assert done.status == 0, (words, done)
    return done.out


def host_config(box: Box, app: str, process_type: str) -> dict[str, Any]:
    """Of the live instance, as the engine has it."""
    instances = box.json("ps:report", app)["instances"]
    name = next(i["name"] for i in instances if i["instance"] == f"{process_type}.1" and i["duty"] == "live")
    return dict(docker("GET", f"/containers/{name}/json")["HostConfig"])


def test_limits_hold_for_a_process_type_from_the_next_start(box: Box, app: str) -> None:
    printed = ok(box, "resource:limit", app, "--process-type", "worker", "--memory", "200m", "--cpu", "0.5")
    assert f"ps:restart {app}" in printed
    ok(box, "resource:limit", app, "--pids", "77")
    ok(box, "resource:reserve", app, "--memory", "100")
    assert host_config(box, app, "worker")["Memory"] == 512 * MIB
    ok(box, "ps:restart", app)
    worker, web = host_config(box, app, "worker"), host_config(box, app, "web")
    assert (worker["Memory"], worker["MemorySwap"], worker["NanoCpus"]) == (200 * MIB, 200 * MIB, 500_000_000)
    assert (web["Memory"], web["NanoCpus"]) == (512 * MIB, 1_000_000_000)
    assert {c["PidsLimit"] for c in (worker, web)} == {77}
    assert {c["MemoryReservation"] for c in (worker, web)} == {100 * MIB}
    assert box.get(app).status == 200


def test_limits_are_reported_with_their_origin_and_cleared(box: Box, app: str) -> None:
    ok(box, "resource:limit", app, "--process-type", "worker", "--memory", "200m")
    ok(box, "resource:limit", app, "--pids", "77")
    worker = box.json("resource:report", app)["process_types"]["worker"]
    assert worker["memory"] == {"value": 200 * MIB, "origin": "process type"}
    assert worker["pids"] == {"value": 77, "origin": "app"}
    assert "200 MiB (process type)" in ok(box, "resource:report", app)
    ok(box, "resource:limit-clear", app, "--process-type", "worker")
    assert box.json("resource:report", app)["process_types"]["worker"]["memory"]["origin"] == "box"
    assert box.json("resource:report", app)["settings"]["pids"] == "77"
    ok(box, "resource:limit-clear", app)
    ok(box, "resource:reserve-clear", app)
    assert box.json("resource:report", app)["settings"] == {}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("resource:limit", "--memory", "900t"), "is more than an instance may have on this box"),
        (("resource:limit", "--cpu", "999"), "run.max_cpus"),
        (("resource:limit", "--memory", "lots"), "a size such as 512m"),
        (("resource:limit",), "name what to set"),
        (("resource:limit", "--process-type", "No!", "--memory", "64m"), "invalid process type"),
        (("resource:reserve", "--memory", "600m"), "would reserve 600 MiB of at most 512 MiB"),
    ],
)
def test_limits_that_cannot_be_are_refused(box: Box, app: str, words: tuple[str, ...], reason: str) -> None:
    done = box.ssh(words[0], app, *words[1:])
    assert done.status == 1
    assert reason in done.err
    assert box.json("resource:report", app)["settings"] == {}


def test_one_off_commands_have_the_limits_of_run(box: Box, app: str) -> None:
    ok(box, "resource:limit", app, "--process-type", "run", "--pids", "55")
    limit = "/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max"
    done = box.ssh("run", app, "sh", "-c", f"'cat {limit} 2>/dev/null'")
    ok(box, "resource:limit-clear", app)
    assert done.out.strip() == "55"
