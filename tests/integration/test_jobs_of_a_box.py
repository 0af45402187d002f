"""Jobs and events of a running box: over SSH, over the API, and over the death of the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.apps import slow_build
from tests.box import ROOT, Box, eventually

_FORGET = "housekeeping.forget"


class Tail:
    """A command that goes on printing, and the lines it has printed."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self._process = subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def until(self, text: str, seconds: float = 60) -> str:
        return str(eventually(lambda: next((line for line in self.lines if text in line), None), seconds))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))


@pytest.fixture
def tail() -> Iterator[Callable[..., Tail]]:
    tails: list[Tail] = []

    def start(box: Box, *words: str) -> Tail:
        command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", *words]
        tails.append(Tail(command))
        return tails[-1]

    yield start
    for each in tails:
        each.close()


def job_of(box: Box, type: str) -> dict[str, Any]:
    """The recurring job of that type; it is added just after SSH begins to answer."""

    def present() -> list[dict[str, Any]]:
        return [job for job in box.json("jobs", "--queue", "cleanup") if job["type"] == type and job["every"]]

    [job] = eventually(present)
    return dict(job)


def test_a_job_that_runs_when_the_daemon_is_killed_is_finished_after_the_restart(
    new_box: Callable[..., Box],
) -> None:
    box = new_box().start(failpoint=f"job {_FORGET}:sleep=3600")
    running = eventually(lambda: (job := job_of(box, _FORGET))["status"] == "running" and job)
    assert (running["finished_at"], running["attempts"]) == (None, 1)
    box.kill()
    box.start()
    ended = eventually(lambda: (job := job_of(box, _FORGET))["status"] == "queued" and not job["error"] and job)
    assert (ended["id"], ended["status"], ended["error"]) == (running["id"], "queued", "")
    assert ended["started_at"] > running["started_at"]
    assert "interrupted by the end of the last daemon" in box.log()


def test_a_stop_does_not_wait_for_a_job_and_the_next_daemon_runs_it(new_box: Callable[..., Box]) -> None:
    box = new_box().start(failpoint=f"job {_FORGET}:sleep=3600")
    eventually(lambda: job_of(box, _FORGET)["status"] == "running")
    started = time.monotonic()
    assert box.stop() == 0
    assert time.monotonic() - started < 10
    box.start()
    ended = eventually(lambda: (job := job_of(box, _FORGET))["status"] == "queued" and not job["error"] and job)
    assert (ended["status"], ended["attempts"]) == ("queued", 0)
    assert "interrupted by the end" not in box.log()


def test_a_recurring_job_can_be_run_now_and_not_be_discarded(box: Box) -> None:
    before = eventually(lambda: (job := job_of(box, _FORGET))["finished_at"] and job)
    assert before["every"] == 600
    done = box.ssh("jobs:retry", str(before["id"]))
    assert done.status == 0 and f"Job {before['id']} is queued" in done.out, done
    eventually(lambda: (job_of(box, _FORGET)["finished_at"] or "") > before["finished_at"])
    refused = box.ssh("jobs:discard", str(before["id"]))
    assert refused.status == 1 and "comes again every 600 s" in refused.err, refused
    shown = box.ssh("jobs:info", str(before["id"]))
    assert shown.status == 0 and "every 600 s" in shown.out, shown
    assert _FORGET in box.ssh("jobs").out
    assert [e["type"] for e in box.json("events") if e["data"].get("job") == before["id"]] == ["job.retried"]


def test_wrong_words_about_jobs_are_refused_with_a_reason(box: Box) -> None:
    for words, reason in (
        (("jobs", "--status", "asleep"), "queued, running, done, dead"),
        (("jobs", "--queue", "kitchen"), "build, deployment, metrics"),
        (("jobs:info", "999999"), "no job 999999"),
        (("jobs:retry", "999999"), "no job 999999"),
        (("jobs:discard", "999999"), "no job 999999"),
    ):
        done = box.ssh(*words)
        assert done.status == 1 and reason in done.err, done
    assert box.ssh("jobs:info", "first").status == 2


@pytest.mark.engine
def test_events_are_followed_live_over_ssh(box: Box, tail: Callable[..., Tail]) -> None:
    plain, as_json = tail(box, "events", "live-events", "-t"), tail(box, "events", "-t", "--json", "-n", "1")
    as_json.until('"type"')
    repository = box.repository(slow_build(3))
    push = box.begin_push(repository, "live-events")
    plain.until("build.started")
    assert push.poll() is None, "the build is under way when its start is told"
    plain.until("deployment.completed")
    out, _ = push.communicate(timeout=120)
    assert push.returncode == 0, out
    order = ["app.created", "deployment.requested", "build.started", "build.completed", "deployment.completed"]
    assert [type for line in plain.lines for type in order if type in line] == order
    as_json.until("deployment.completed")
    events = [json.loads(line) for line in as_json.lines]
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))
    [requested] = [e for e in events if e["type"] == "deployment.requested" and e["app"] == "live-events"]
    later = box.json("events", "live-events", "--after", str(requested["id"]))
    assert [event["type"] for event in later][-1] == "deployment.completed"
    assert all(event["id"] > requested["id"] for event in later)
    assert box.ssh("apps:destroy", "live-events", "--force").status == 0


def test_followers_do_not_hold_up_the_stop(new_box: Callable[..., Box], tail: Callable[..., Tail]) -> None:
    box = new_box().start()
    over_ssh = tail(box, "events", "-t")
    environment = {**os.environ, "PAASD_DATA_DIR": str(box.data)}
    local = Tail([sys.executable, "-m", "paasd", "events", "-t"], cwd=ROOT, env=environment)
    try:
        over_ssh.until("key.added")
        local.until("key.added")
        started = time.monotonic()
        assert box.stop() == 0
        assert time.monotonic() - started < 9
        over_ssh.wait(10)
        local.wait(10)
    finally:
        local.close()


def test_after_nothing_means_from_the_first_event_on(box: Box) -> None:
    everything = box.api("GET", "/events?after=0&limit=1")
    assert everything["items"][0]["id"] == 1
    assert everything["after"] == 1
    newest = box.api("GET", "/events?limit=1")["after"]
    assert box.api("GET", f"/events?after={newest}") == {"items": [], "after": newest}
