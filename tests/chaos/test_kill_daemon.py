"""`kill -9` of the daemon in every phase of a deploy: no request to the running release fails, and after a restart
nothing is half done."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apps import app, slow_build
from tests.box import ROOT, Box, Repository, eventually, labelled
from tests.prober import Prober

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# Until the transaction of the switch is committed the old release is the live one.
BEFORE_COMMIT = [
    "push-received",
    "build-requested",
    "build-started",
    "before-image",
    "build-finished",
    "release-created",
    "after-release-task",
    "instance-started",
    "before-switch",
    "after-route",
]
AFTER_COMMIT = ["after-commit", "before-stop-old"]
STRATEGIES = {"recreate": "old-vacated", "canary": "canary-routed"}
DESTROYING = ["app-row-removed"]
ELSEWHERE = ["unhealthy-stopped", "sleep-routed", "sleep-written", "wake-started", "wake-routed"]
"""Killed at in tests/integration/test_health.py and test_sleeping.py."""
_PROCFILE = "web: python3 -u app.py\nrelease: echo released\n"
_SETTINGS = "[run]\ndrain = 1.0\nstop_timeout = 2\n"


def test_every_fail_point_is_killed_at() -> None:
    text = "".join(path.read_text() for path in (ROOT / "paasd").rglob("*.py"))
    assert set(re.findall(r'failpoints\.hit\("([^"]+)"\)', text)) == {
        *BEFORE_COMMIT,
        *AFTER_COMMIT,
        *STRATEGIES.values(),
        *DESTROYING,
        *ELSEWHERE,
    }


@pytest.fixture(scope="module")
def survivor() -> Iterator[Box]:
    """A box with a running app, whose daemon is killed and started again and again."""
    box = Box(_SETTINGS).start()
    try:
        yield box
    finally:
        box.close()


@pytest.fixture(scope="module")
def repository(survivor: Box) -> Repository:
    repository = survivor.repository(app(body="page 0", Procfile=_PROCFILE))
    assert survivor.push(repository, "live").status == 0
    return repository


def leftovers(box: Box) -> list[Path]:
    """Locks, quarantines and half-written files anywhere in the data directory."""
    found = [
        path for pattern in ("*.lock", "*.new", "*.tmp", "tmp_objdir*", "tmp_pack*") for path in box.data.rglob(pattern)
    ]
    return [path for path in found if path.exists()]


def assert_settled(box: Box, apps: int = 1) -> None:
    """Within a minute everything agrees, and the engine has the live instances and nothing else."""
    box.settles(60)

    def only_live_ones_run() -> bool:  # what retires may go between the two looks
        wanted = {i["name"] for i in box.json("ps:report", "live")["instances"]}
        return {c["Names"][0].lstrip("/") for c in box.containers()} == wanted

    eventually(only_live_ones_run, 60)
    assert len(labelled("networks", box.label)) == apps
    assert leftovers(box) == []
    assert {b["status"] for b in box.json("builds", "live")} <= {"succeeded", "failed", "cancelled"}
    assert {d["status"] for d in box.json("deployments", "live")} <= {"succeeded", "failed", "cancelled"}


def push_to_death(box: Box, repository: Repository, point: str) -> str:
    """Push to a daemon that dies at `point`; what the pusher read."""
    assert box.stop() == 0
    box.start(failpoint=f"{point}:kill")
    done = box.push(repository, "live", "+main", timeout=60)
    assert done.status != 0, done
    assert box.process is not None
    assert box.process.wait(30) == -signal.SIGKILL
    return done.all


@pytest.mark.parametrize("point", BEFORE_COMMIT)
def test_killed_before_the_commit_the_old_release_is_live(survivor: Box, repository: Repository, point: str) -> None:
    box = survivor
    old = box.get("live").text
    repository.commit(app(body=f"never {point}", Procfile=_PROCFILE))
    with Prober(box, "live") as prober:
        seen = push_to_death(box, repository, point)
        box.start()
        assert_settled(box)
        assert box.get("live").text == old
    prober.assert_unbroken()
    assert "paasd stopped" in seen or "hung up" in seen or "closed by remote host" in seen, seen
    # Between the switch of the edge and the commit the new instances may answer for a moment; nothing else may.
    assert set(prober.pages) <= ({old, f"never {point}"} if point == "after-route" else {old})
    repository.commit(app(body=f"after {point}", Procfile=_PROCFILE))
    done = box.push(repository, "live", "+main")
    assert done.status == 0, done
    assert box.get("live").text == f"after {point}"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_in_a_strategy_the_old_release_is_live(survivor: Box, repository: Repository, strategy: str) -> None:
    box = survivor
    old = box.get("live").text
    assert box.ssh("deploy:set", "live", "strategy", strategy).status == 0
    repository.commit(app(body=f"never {strategy}", Procfile=_PROCFILE))
    with Prober(box, "live") as prober:
        push_to_death(box, repository, STRATEGIES[strategy])
        box.start()
        assert_settled(box)
        eventually(lambda: box.get("live").text == old)
    if strategy != "recreate":  # which stops the app on purpose
        prober.assert_unbroken()
    assert box.ssh("deploy:set", "live", "strategy").status == 0
    assert box.push(repository, "live", "+main").status == 0


def test_killed_after_the_commit_the_new_release_is_live(survivor: Box, repository: Repository) -> None:
    box = survivor
    repository.commit(app(body="committed", Procfile=_PROCFILE))
    with Prober(box, "live") as prober:
        push_to_death(box, repository, "after-commit")
        box.start()
        assert_settled(box)
        assert box.get("live").text == "committed"
    prober.assert_unbroken()
    assert box.push(repository, "live", "+main").status == 0
    assert box.get("live").text == "committed"


def test_killed_before_the_old_instance_stops(survivor: Box, repository: Repository) -> None:
    box = survivor
    repository.commit(app(body="stopping", Procfile=_PROCFILE))
    with Prober(box, "live") as prober:
        eventually(lambda: len(box.containers()) == 1, 30)  # none of the last test retires any more
        assert box.stop() == 0
        box.start(failpoint="before-stop-old:kill")
        box.push(repository, "live", "+main")  # on a slow machine its end comes after the kill
        assert box.process is not None
        assert box.process.wait(30) == -signal.SIGKILL
        box.start()
        assert_settled(box)
    prober.assert_unbroken()
    assert box.get("live").text == "stopping"


def test_killed_in_a_release_task_and_in_a_one_off(survivor: Box, repository: Repository) -> None:
    box = survivor
    repository.commit(app(Procfile="web: python3 -u app.py\nrelease: sleep 120\n"))
    with Prober(box, "live") as prober:
        push = box.begin_push(repository, "live", "+main")
        one_off = subprocess.Popen(
            [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "run", "live", "sleep", "120"],
            stdin=subprocess.DEVNULL,
        )
        eventually(lambda: len(box.containers()) == 3, 30)
        box.kill()
        text, _ = push.communicate(timeout=30)
        assert push.returncode != 0, text
        assert one_off.wait(30) != 0
        box.start()
        assert_settled(box)
    prober.assert_unbroken()


def test_stopped_in_the_middle_of_a_build_the_pusher_is_told(survivor: Box, repository: Repository) -> None:
    box = survivor
    repository.commit(slow_build(60))
    with Prober(box, "live") as prober:
        push = box.begin_push(repository, "live", "+main")
        eventually(lambda: box.json("builds", "live")[0]["status"] == "running")
        assert box.stop() == 0
        text, _ = push.communicate(timeout=30)
        assert push.returncode != 0
        assert "paasd is stopping" in text and "Push again once it is back" in text
        assert "! [remote rejected]" in text
        box.start()
        assert_settled(box)
    prober.assert_unbroken()
    assert box.json("builds", "live")[0]["status"] == "cancelled"


def test_stopped_while_an_instance_is_checked(survivor: Box, repository: Repository) -> None:
    """A restart whose new instance never answers must not hold up the end of the daemon."""
    box = survivor
    assert box.ssh("config:set", "--no-restart", "live", "SLOW=1").status == 0
    repository.commit(app("time.sleep(60) if os.environ.get('SLOW') else None\nserve()", body="slow"))
    push = box.begin_push(repository, "live", "+main")
    eventually(lambda: box.json("deployments", "live")[0]["phase"] == "starting")
    assert box.stop() == 0
    text, _ = push.communicate(timeout=30)
    assert push.returncode != 0 and "paasd is stopping" in text
    box.start()
    assert_settled(box)
    assert box.json("deployments", "live")[0]["status"] == "cancelled"
    restart = subprocess.Popen(
        [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "config:unset", "live", "SLOW"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    assert restart.wait(60) == 0


@pytest.mark.parametrize("point", DESTROYING)
def test_killed_in_the_middle_of_destroying(new_box: Callable[..., Box], point: str) -> None:
    """The row is gone, everything that hung on it is still there; also what somebody runs in it."""
    box = new_box(_SETTINGS).start(failpoint=f"{point}:kill")
    assert box.push(box.repository(app(body="stays")), "stays").status == 0
    assert box.push(box.repository(app()), "short").status == 0
    assert box.ssh("domains:add", "short", "short.test").status == 0
    one_off = subprocess.Popen(
        [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "run", "short", "sleep", "300"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: len(box.containers()) == 3, 30)
    with Prober(box, "stays") as prober:
        assert box.ssh("apps:destroy", "short", "--force").status != 0
        assert box.process is not None
        assert box.process.wait(30) == -signal.SIGKILL
        assert one_off.wait(30) != 0
        assert len(box.containers()) == 3 and len(labelled("networks", box.label)) == 2
        box.start()
        done = box.local("doctor", "--state")
        assert done.status == 0, done
    # Taking a site away is a reload, which ends connections that are kept for further requests.
    assert [failure for failure in prober.failures if not failure.startswith("kept")] == []
    assert set(prober.pages) == {"stays"}
    assert [c["Labels"]["paasd.app-name"] for c in box.containers()] == ["stays"]
    assert len(labelled("networks", box.label)) == 1
    assert len([p for p in (box.data / "repositories").iterdir() if p.name.endswith(".git")]) == 1
    assert len(list((box.data / "logs" / "builds").iterdir())) == 1
    [images] = [job["id"] for job in box.json("jobs") if job["type"] == "housekeeping.images"]
    assert box.ssh("jobs:retry", str(images)).status == 0  # it would run by itself within ten minutes
    eventually(lambda: len(labelled("images", box.label)) == 1)
    assert box.get("short").status == box.get("short", host="short.test").status == 404
    assert box.ssh("apps:create", "short").status == 0
    assert box.ssh("domains:add", "short", "short.test").status == 0


def test_killed_while_an_app_is_made_and_destroyed(new_box: Callable[..., Box]) -> None:
    box = new_box(_SETTINGS).start()
    assert box.push(box.repository(app()), "short").status == 0
    destroying = subprocess.Popen(
        [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "apps:destroy", "short", "--force"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: box.get("short").status != 200, 20)
    box.kill()
    destroying.wait(30)
    box.start()
    box.settles(60)
    box.ssh("apps:destroy", "short", "--force")
    box.settles(60)
    assert box.containers() == [] and labelled("networks", box.label) == []
    assert [p for p in (box.data / "repositories").iterdir() if p.name.endswith(".git")] == []
