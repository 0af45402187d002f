"""The client of a push is killed, at each point: nothing of the push stays, and the next one works at once."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps import app, slow_build
from tests.box import Box, Repository, eventually
from tests.prober import Prober

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box("[run]\ndrain = 1.0\nstop_timeout = 2\n").start()
    try:
        assert box.push(box.repository(app(body="before")), "lost").status == 0
        yield box
    finally:
        box.close()


def kill(push: subprocess.Popen[str]) -> None:
    """git and its ssh, at once and without a goodbye."""
    os.killpg(push.pid, signal.SIGKILL)
    push.communicate(timeout=10)


def temporary(box: Box) -> list[Path]:
    root = box.data / "repositories"
    return [path for pattern in ("tmp_*", "*.lock", "incoming-*") for path in root.rglob(pattern)]


def assert_nothing_stays(box: Box, page: str = "before") -> None:
    """At once, without waiting for a sweep: no lock, no quarantine, no build under way, and the next push works."""
    eventually(lambda: temporary(box) == [] and len(box.containers()) == 1, 20)
    box.settles(20)
    assert {b["status"] for b in box.json("builds", "lost")} <= {"succeeded", "cancelled"}
    assert box.get("lost").text == page
    assert box.push(box.repository(app(body="before")), "lost", "+main").status == 0
    eventually(lambda: len(box.containers()) == 1, 20)


def test_before_the_pack(box: Box) -> None:
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "git-receive-pack '/lost'"]
    ssh = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert ssh.stdout is not None
    assert ssh.stdout.read(4)
    os.killpg(ssh.pid, signal.SIGKILL)
    ssh.communicate()
    assert_nothing_stays(box)


def test_in_the_middle_of_a_large_pack(box: Box) -> None:
    repository = box.repository(app() | {"noise.bin": os.urandom(100_000_000)})
    push = box.begin_push(repository, "lost", "+main")
    eventually(lambda: sum(p.stat().st_size for p in temporary(box) if p.is_file() and p.exists()) > 5_000_000, 30)
    kill(push)
    assert_nothing_stays(box)


def test_during_a_chatty_build(box: Box) -> None:
    push = box.begin_push(box.repository(slow_build(60)), "lost", "+main")
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "running")
    time.sleep(1)
    with Prober(box, "lost") as prober:
        kill(push)
        eventually(lambda: box.json("builds", "lost")[0]["status"] == "cancelled", 10)
    prober.assert_unbroken()
    assert "went away" in box.json("builds", "lost")[0]["reason"]
    assert_nothing_stays(box)


def test_during_a_silent_build(box: Box) -> None:
    files = app(nonce=secrets.token_hex())
    files["Dockerfile"] += 'RUN ["python3", "-c", "import time; time.sleep(60.123)"]\n'
    push = box.begin_push(box.repository(files), "lost", "+main")
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "running")
    time.sleep(1)
    kill(push)
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "cancelled", 10)
    eventually(lambda: not running("time.sleep(60.123)"), 20)
    assert_nothing_stays(box)


def running(words: str) -> bool:
    """Whether any process on the machine, containers included, has this in its command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in entry.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_during_the_release_task(box: Box) -> None:
    files = app(Procfile="web: python3 -u app.py\nrelease: sleep 60\n")
    push = box.begin_push(box.repository(files), "lost", "+main")
    eventually(lambda: len(box.containers()) == 2)
    kill(push)
    assert_nothing_stays(box)


def test_during_the_health_checks(box: Box) -> None:
    push = box.begin_push(box.repository(app("time.sleep(60)")), "lost", "+main")
    eventually(lambda: len(box.containers()) == 2)
    kill(push)
    assert_nothing_stays(box)
    assert box.json("deployments", "lost")[1]["status"] == "cancelled"


def test_interrupted_by_its_user(box: Box) -> None:
    """Ctrl-C, which ssh passes on by hanging up."""
    push = box.begin_push(box.repository(slow_build(60)), "lost", "+main")
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "running")
    os.killpg(push.pid, signal.SIGINT)
    push.communicate(timeout=10)
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "cancelled", 10)
    assert_nothing_stays(box)


def test_while_it_waits_in_the_queue(box: Box) -> None:
    others = [box.begin_push(box.repository(slow_build(8)), f"busy-{i}") for i in range(3)]
    eventually(lambda: len(box.json("apps:list")) == 4 and box.json("builds", "busy-2"))
    push = box.begin_push(box.repository(app(body="queued")), "lost", "+main")
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "queued", 10)
    kill(push)
    eventually(lambda: box.json("builds", "lost")[0]["status"] == "cancelled", 10)
    for other in others:
        kill(other)
    for i in range(3):
        eventually(lambda i=i: box.json("builds", f"busy-{i}")[0]["status"] == "cancelled", 20)
        assert box.ssh("apps:destroy", f"busy-{i}", "--force").status == 0
    assert_nothing_stays(box)


@pytest.fixture
def slow_switch(box: Box) -> Iterator[Box]:
    assert box.stop() == 0
    yield box.start(failpoint="after-commit:sleep=2")
    assert box.stop() == 0
    box.start()


def test_after_the_switch_the_push_completes(slow_switch: Box) -> None:
    box = slow_switch
    repository = Repository(box.repository(app(body="switched")).path)
    push = box.begin_push(repository, "lost", "+main")
    eventually(lambda: box.get("lost").text == "switched")
    kill(push)
    box.settles(20)
    assert box.get("lost").text == "switched"
    head = box.push(repository, "lost", "main")
    assert head.status == 0 and "Everything up-to-date" in head.all
