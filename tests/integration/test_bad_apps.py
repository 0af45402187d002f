"""Apps that misbehave: the pusher is told what was seen, and what ran before goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.apps import CRASHES_WHEN_ASKED, DOCKERFILE, app
from tests.box import Box, Done, eventually

pytestmark = pytest.mark.engine

_SETTINGS = """
[run]
stop_timeout = 2
drain = 2.0
"""


@pytest.fixture(scope="module")
def quick() -> Iterator[Box]:
    """A box that waits only a few seconds for an app to stop."""
    box = Box(_SETTINGS)
    try:
        yield box.start()
    finally:
        box.close()


def assert_rejected(done: Done) -> None:
    assert done.status != 0, done
    assert "! [remote rejected] main -> main (pre-receive hook declined)" in done.all, done


def refused(box: Box, name: str, files: dict[str, str]) -> str:
    """Push an app that must not go live; what its pusher read. Nothing of it may stay behind."""
    done = box.push(box.repository(files), name)
    assert_rejected(done)
    assert box.json("apps:info", name)["release"] is None
    assert box.get(name).status == 503
    assert [c for c in box.containers() if c["Labels"]["paasd.app-name"] == name] == []
    box.settles()
    return done.all


def refused_in_time(box: Box, name: str, files: dict[str, str]) -> str:
    """The same of an app that would never be well: only these get few seconds to start."""
    assert box.ssh("apps:create", name).status == 0
    assert box.ssh("deploy:set", name, "start-timeout", "3s").status == 0
    return refused(box, name, files)


def test_app_that_never_listens(quick: Box) -> None:
    seen = refused_in_time(quick, "silent", app("print('thinking', flush=True)\ntime.sleep(600)"))
    assert "web.1 did not listen on $PORT=5000 in time" in seen
    assert "       thinking" in seen
    assert "make the web process listen on 0.0.0.0:$port" in seen.lower()


def test_app_on_the_wrong_port(quick: Box) -> None:
    seen = refused_in_time(quick, "wrong-port", app("serve(port=3000)"))
    assert "web.1 is listening on 3000, expected $PORT=5000" in seen
    assert "environment variable PORT" in seen


def test_app_on_loopback_only(quick: Box) -> None:
    seen = refused_in_time(quick, "loopback", app("serve('127.0.0.1')"))
    assert "web.1 listens on port 5000, but" in seen
    assert "Bind to 0.0.0.0" in seen


def test_app_that_exits_at_once(quick: Box) -> None:
    started = time.monotonic()
    seen = refused(quick, "exits", app("print('cannot find the moon', file=sys.stderr)\nsys.exit(3)"))
    assert "web.1 exited with status 3" in seen
    assert "       cannot find the moon" in seen
    assert "run exits <command>" in seen
    assert time.monotonic() - started < 30


def test_app_that_answers_500_on_its_check_path(quick: Box) -> None:
    checks = {"healthchecks": {"web": [{"type": "startup", "path": "/health", "attempts": 2, "wait": 0}]}}
    seen = refused(quick, "ill", app(status=500, app__json=json.dumps(checks)))
    assert "web.1: GET /health answered 500, expected 200 to 399 (2 times)" in seen
    assert "checks:set ill web --path" in seen


def test_app_that_lacks_the_text_its_check_wants(quick: Box) -> None:
    checks = {"healthchecks": {"web": [{"path": "/", "content": "ready", "attempts": 1}]}}
    seen = refused(quick, "textless", app(app__json=json.dumps(checks)))
    assert "answered 200, but without the text 'ready'" in seen


def test_app_that_eats_its_memory_is_told_so(quick: Box) -> None:
    seen = refused(quick, "hungry", app("hog = bytearray(900_000_000)\ntime.sleep(60)"))
    assert "web.1 ran out of memory and was killed" in seen or "exited with status 137" in seen


def test_failed_build_shows_its_last_lines_and_the_old_release_serves(quick: Box) -> None:
    repository = quick.repository(app(body="old"))
    assert quick.push(repository, "builder").status == 0
    broken = f'{DOCKERFILE}RUN ["python3", "-c", "print(\'no such wheel\'); raise SystemExit(7)"]\n'
    repository.commit({"Dockerfile": broken})
    done = quick.push(repository, "builder")
    assert_rejected(done)
    assert "no such wheel" in done.all
    assert "failed with exit code 7" in done.all
    assert "commit and push again" in done.all
    assert quick.get("builder").text == "old"
    assert quick.json("apps:info", "builder")["release"] == "v1"
    newest = quick.json("builds", "builder")[0]
    assert newest["status"] == "failed" and "exit code 7" in newest["reason"]
    assert "no such wheel" in quick.ssh("builds:log", "builder").out


def test_release_task_is_streamed_and_its_failure_keeps_the_old_release(quick: Box) -> None:
    procfile = "web: python3 -u app.py\nrelease: echo migrating $PAASD_RELEASE; exit {}\n"
    repository = quick.repository(app(body="one", Procfile=procfile.format(0)))
    done = quick.push(repository, "migrates")
    assert done.status == 0, done
    assert "Running the release task" in done.all and "       migrating v1" in done.all
    repository.commit(app(body="two", Procfile=procfile.format(9)))
    failed = quick.push(repository, "migrates")
    assert_rejected(failed)
    assert "       migrating v2" in failed.all
    assert "the release task exited with status 9" in failed.all
    assert quick.get("migrates").text == "one"
    assert quick.json("deployments", "migrates")[0]["status"] == "failed"
    quick.settles()


def test_failing_worker_keeps_the_old_web(quick: Box) -> None:
    procfile = "web: python3 -u app.py\nworker: {}\n"
    repository = quick.repository(app(body="one", Procfile=procfile.format("exec sleep 600")))
    assert quick.push(repository, "both").status == 0
    assert quick.ssh("ps:scale", "both", "worker=1").status == 0
    repository.commit(app(body="two", Procfile=procfile.format("echo no queue; exit 4")))
    done = quick.push(repository, "both")
    assert_rejected(done)
    assert "worker.1 exited with status 4" in done.all and "       no queue" in done.all
    assert quick.get("both").text == "one"
    report = quick.json("ps:report", "both")
    assert {(i["instance"], i["state"], i["duty"]) for i in report["instances"]} == {
        ("web.1", "running", "live"),
        ("worker.1", "running", "live"),
    }
    quick.settles()


def test_old_instance_that_ignores_sigterm_is_killed_in_time(quick: Box) -> None:
    repository = quick.repository(app("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve()", body="deaf"))
    assert quick.push(repository, "deaf").status == 0
    old = quick.json("ps:report", "deaf")["instances"][0]["name"]
    repository.commit(app(body="hears"))
    assert quick.push(repository, "deaf").status == 0
    assert quick.get("deaf").text == "hears"
    eventually(lambda: old not in {c["Names"][0].lstrip("/") for c in quick.containers()}, 20)
    quick.settles(10)


def test_app_that_crashes_later_is_shown_crashing_and_hurts_no_other(quick: Box) -> None:
    assert quick.push(quick.repository(app(body="steady")), "steady").status == 0
    assert quick.push(quick.repository(app(CRASHES_WHEN_ASKED)), "crashes").status == 0
    assert quick.get("crashes", "/crash").status != 200
    pages = []

    def crashing() -> bool:
        pages.append(quick.get("steady").status)
        instance = quick.json("ps:report", "crashes")["instances"][0]
        return bool(instance["state"] == "crashing" and instance["restarts"] >= 1)

    eventually(crashing, 30)
    assert set(pages) == {200}
    assert "bye" in quick.ssh("logs", "crashes").out
    assert any("is crashing" in line for line in eventually(quick.differences, 20))
    text = eventually(lambda: "crashing (last exit 7)" in (shown := quick.ssh("ps:report", "crashes").out) and shown)
    assert "RESTARTS" in text
    assert quick.ssh("apps:destroy", "crashes", "--force").status == 0
    quick.settles()
