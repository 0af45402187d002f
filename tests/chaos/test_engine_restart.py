"""The engine itself stops and comes back. On an engine of the test's own, so that nobody else notices."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest

from tests.box import Box, eventually
from tests.engine import Engine, running_engine
from tests.images import TEST_IMAGE

pytestmark = [pytest.mark.engine, pytest.mark.slow]

_PROCFILE = "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\nworker: exec sleep 3600\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def box(engine: Engine) -> Iterator[Box]:
    settings = f'docker_host = "unix://{engine.socket}"\n[run]\nfirewall = false\nsubnet_pool = "{engine.pool}"\n'
    box = Box(f"{settings}stop_timeout = 2\ndrain = 1.0\n").start()
    try:
        files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "Procfile": _PROCFILE}
        for name in ("one", "two"):
            done = box.push(box.repository({**files, "index.html": name}), name)
            assert done.status == 0, done
        assert box.ssh("ps:scale", "two", "web=2", "worker=1").status == 0
        yield box
    finally:
        box.close()


def assert_all_runs(box: Box) -> None:
    eventually(lambda: all(box.get(name).text == name for name in ("one", "two")), 60)
    box.settles(60)
    states = [i["state"] for name in ("one", "two") for i in box.json("ps:report", name)["instances"]]
    assert states == ["running"] * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_engine_restarted(engine: Engine, box: Box, number: int) -> None:
    addresses = [i["address"] for i in box.json("ps:report", "two")["instances"]]
    engine.end(number)
    try:
        refused = box.push(box.repository({"index.html": "x", "Dockerfile": f"FROM {TEST_IMAGE}\n"}), "one", "+main")
        assert refused.status != 0
        assert "the container engine does not answer" in refused.all and "Start the Docker engine" in refused.all
        report = box.ssh("ps:report", "one")
        assert report.status == 1 and "the container engine does not answer" in report.err
        assert box.ssh("apps:list").status == 0
    finally:
        engine.start()
    assert_all_runs(box)
    assert [i["address"] for i in box.json("ps:report", "two")["instances"]] == addresses


def test_engine_that_ended_over_a_removal(engine: Engine, box: Box) -> None:
    """It has a dead container then, and does nothing about it by itself."""
    name = box.json("ps:report", "two")["instances"][0]["name"]
    id = engine.request("GET", f"/containers/{name}/json")["Id"]
    engine.end(signal.SIGKILL)
    try:
        path = engine.root / "data" / "containers" / id / "config.v2.json"
        config = json.loads(path.read_text())
        config["State"] |= {"Running": False, "RemovalInProgress": True}
        path.write_text(json.dumps(config))
    finally:
        engine.start()
    assert_all_runs(box)
    assert engine.request("GET", f"/containers/{name}/json")["Id"] != id


def test_daemon_started_without_an_engine(engine: Engine, box: Box) -> None:
    """The API answers meanwhile, and all is well once the engine is back."""
    assert box.stop() == 0
    engine.end(signal.SIGTERM)
    try:
        box.start()
        assert box.ssh("apps:list").out.split()[-2:] == ["one", "two"]
        time.sleep(2)
    finally:
        engine.start()
    assert_all_runs(box)


def test_engine_that_hangs(engine: Engine, box: Box) -> None:
    """It keeps its connections and answers nothing: apps serve on, nobody waits for it, nothing is taken for dead."""
    with engine.stopped():
        refused = box.ssh("ps:report", "one", timeout=60)  # the first to ask waits a whole time-out
        assert refused.status == 1 and "the container engine did not answer" in refused.err, refused
        began = time.monotonic()
        assert "did not answer GET /_ping within 1 s" in box.ssh("ps:report", "one").err
        assert box.ssh("apps:list").status == 0
        waited = time.monotonic() - began
        assert all(box.get(name).text == name for name in ("one", "two"))
    assert waited < 15, "far below the time-out of a call, which is 30 s"
    assert_all_runs(box)
    assert box.json("ps:report", "two")["instances"][0]["restarts"] == 0


def test_push_after_all_that(box: Box) -> None:
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "Procfile": _PROCFILE, "index.html": "new"}
    done = box.push(box.repository(files), "one", "+main")
    assert done.status == 0, done
    assert box.get("one").text == "new"
