"""Instances come with the load and go with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.apps import app
from tests.box import Box, eventually

pytestmark = pytest.mark.engine

_SETTINGS = "[run]\ndrain = 0.5\nstream_drain = 1.0\nstop_timeout = 2\nautoscale_interval = 1.0\n"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box(_SETTINGS).start()
    yield box
    box.close()


@contextmanager
def visitors(box: Box, name: str, pause: float) -> Iterator[list[int]]:
    """Asks again and again; gives the statuses."""
    end, statuses = threading.Event(), list[int]()

    def ask() -> None:
        while not end.wait(pause):
            statuses.append(box.get(name).status)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield statuses
    finally:
        end.set()
        thread.join(15)


def live(box: Box, name: str) -> list[str]:
    found = [i["instance"] for i in box.json("ps:report", name)["instances"] if i["duty"] == "live"]
    return sorted(found)


def test_load_brings_instances_and_quiet_takes_them_away(box: Box) -> None:
    formation = {"formation": {"worker": {"quantity": 1}}}
    procfile = "web: python3 -u app.py\nworker: sleep 3600\n"
    done = box.push(box.repository(app(Procfile=procfile, app__json=json.dumps(formation))), "busy")
    assert done.status == 0, done.all
    done = box.ssh("autoscale:set", "busy", "web", "max=2", "rps=5", "cpu=90", "cooldown=4s")
    assert done.status == 0, done.all
    with visitors(box, "busy", 0.02) as statuses:
        eventually(lambda: live(box, "busy") == ["web.1", "web.2", "worker.1"], 40)
        event = next(e for e in box.json("events", "busy") if e["type"] == "app.autoscaled")
        assert (event["data"]["before"], event["data"]["after"]) == (1, 2)
        assert "requests/s, target 5 an instance; max is 2" in event["data"]["reason"]
        found = eventually(lambda: box.json("autoscale:report", "busy")["web"])
        eventually(lambda: (box.json("autoscale:report", "busy")["web"]["seen"]["cpu"] or 0) > 0, 20)
    assert found["rule"]["max"] == 2 and set(statuses) == {200}
    assert "rps=5" in box.ssh("autoscale:report", "busy").out
    eventually(lambda: live(box, "busy") == ["web.1", "worker.1"], 40)
    last = [e for e in box.json("events", "busy") if e["type"] == "app.autoscaled"][-1]
    assert (last["data"]["before"], last["data"]["after"]) == (2, 1) and "no more were needed" in last["data"]["reason"]
    assert box.ssh("autoscale:unset", "busy").status == 0
    assert box.json("autoscale:report", "busy") == {}
    box.settles()


def test_app_json_may_say_it_and_the_command_says_more(box: Box) -> None:
    trigger = {"type": "cpu", "metadata": {"type": "Utilization", "value": "70"}}
    autoscaling = {"min_quantity": 2, "max_quantity": 3, "cooldown_period_seconds": 60, "triggers": [trigger]}
    formation = {"formation": {"web": {"quantity": 1, "autoscaling": autoscaling}}}
    done = box.push(box.repository(app(app__json=json.dumps(formation))), "told")
    assert done.status == 0, done.all
    eventually(lambda: live(box, "told") == ["web.1", "web.2"], 40)
    assert box.ssh("autoscale:set", "told", "web", "min=1").status == 0
    rule = box.json("autoscale:report", "told")["web"]["rule"]
    assert (rule["min"], rule["max"], rule["cpu"], rule["cooldown"]) == (1, 3, 70.0, 60.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["web", "cpu=70"], "needs a max"),
        (["web", "max=3"], "needs one of"),
        (["web", "max=3", "min=4", "cpu=70"], "more than max"),
        (["web", "max=3", "cpu=0"], "cpu must be"),
        (["web", "max=51", "cpu=5"], "max must be"),
        (["web", "max=3", "p95=fast"], "p95 must be"),
        (["worker", "max=3", "rps=5"], "known of web only"),
        (["web", "max=3", "colour=5"], "there is no autoscale setting"),
        (["WEB!", "max=3", "cpu=5"], "process type"),
        (["web", "max"], "key=value"),
    ],
)
def test_what_makes_no_rule_is_refused(box: Box, words: list[str], said: str) -> None:
    box.ssh("apps:create", "ruled")
    done = box.ssh("autoscale:set", "ruled", *words)
    assert done.status != 0 and said in done.err, done.err
    assert box.json("autoscale:report", "ruled") == {}
