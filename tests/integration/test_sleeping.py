"""Apps that nobody asks for sleep, and wake with the next request."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.apps import app
from tests.box import Answer, Box, docker, eventually
from tests.prober import Prober

pytestmark = pytest.mark.engine

_SETTINGS = "[run]\ndrain = 0.5\nstream_drain = 1.0\nstop_timeout = 2\n"
_SERVER = """
def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    self.send_response(200)
    self.end_headers()
    self.wfile.write(b"%d %s" % (len(body), body[-5:]))
    self.close_connection = True

def do_GET(self, get=Handler.do_GET):
    if self.path != "/events":
        return get(self)
    self.send_response(200)
    self.send_header("Content-Type", "text/event-stream")
    self.end_headers()
    try:
        while True:
            self.wfile.write(b"data: tick\\n\\n")
            time.sleep(0.1)
    except OSError:
        self.close_connection = True

Handler.do_POST, Handler.do_GET = do_POST, do_GET
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
"""
_ONCE = "started = '/tmp/started'\nsys.exit(3) if os.path.exists(started) else open(started, 'w').close()\nserve()\n"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box(_SETTINGS).start()
    yield box
    box.close()


@pytest.fixture(scope="module")
def sleepy(box: Box) -> str:
    procfile = "web: python3 -u app.py\nworker: exec sleep 3600\n"
    done = box.push(box.repository(app(f"{_SERVER}\nserve()", Procfile=procfile)), "sleepy")
    assert done.status == 0, done.all
    assert box.ssh("ps:scale", "sleepy", "web=2", "worker=1").status == 0
    return "sleepy"


def ok(box: Box, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 0, done.all
    return done.out


def states(box: Box, name: str) -> dict[str, str]:
    return {i["instance"]: i["state"] for i in box.json("ps:report", name)["instances"] if i["duty"] == "live"}


def is_asleep(box: Box, name: str) -> bool:
    return bool(box.json("sleep:report", name)["asleep"]) and "running" not in states(box, name)["web.1"]


def put_to_sleep(box: Box, name: str) -> None:
    eventually(lambda: box.ssh("sleep:now", name).status == 0, 10)  # refused while the last request still counts
    assert is_asleep(box, name)


def told(box: Box, name: str, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in box.json("events", name) if event["type"] == kind]


def post(box: Box, name: str, body: bytes) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", box.http_port, timeout=30)
    connection.request("POST", "/", body, headers={"Host": f"{name}.localhost"})
    response = connection.getresponse()
    answer = Answer(response.status, response.read().decode(), {})
    connection.close()
    return answer


def test_an_idle_app_sleeps_and_wakes_for_all_who_come_first(box: Box, sleepy: str) -> None:
    """Its server has a queue of five: who comes first must not come all at once."""
    assert box.push(box.repository(app(body="other")), "other").status == 0
    said = ok(box, "sleep:set", sleepy, "after=1s", "hold=20s")
    assert "after=1s hold=20s workers=no" in said
    with Prober(box, "other") as prober:
        eventually(lambda: is_asleep(box, sleepy), 20)
        assert states(box, sleepy) == {"web.1": "asleep", "web.2": "asleep", "worker.1": "running"}
        assert "sleepy (asleep)" in ok(box, "apps:list") and "asleep" in ok(box, "ps:report", sleepy)
        box.settles()
        kept = {container["Id"] for container in box.containers()}
        ok(box, "sleep:set", sleepy, "after=1h")
        with ThreadPoolExecutor(54) as pool:
            posted = [pool.submit(post, box, sleepy, b"x" * size + b"ended") for size in (10, *[500_000] * 3)]
            got = [pool.submit(box.get, sleepy, timeout=30) for _ in range(50)]
            assert {answer.result().status for answer in got} == {200}
            assert [answer.result().text for answer in posted] == ["15 ended", *["500005 ended"] * 3]
    assert prober.failures == [] and set(prober.pages) == {"other"}
    assert {container["Id"] for container in box.containers()} == kept
    [woke], [slept] = told(box, sleepy, "app.woke"), told(box, sleepy, "app.slept")
    assert slept["reason"] == "no request for 1 s" and slept["instances"] == 2
    assert woke["reason"] == "a request came" and 0 < woke["seconds"] < 20
    assert set(states(box, sleepy).values()) == {"running"}
    box.settles()


def test_a_stream_keeps_it_awake(box: Box, sleepy: str) -> None:
    stream = http.client.HTTPConnection("127.0.0.1", box.http_port, timeout=10)
    stream.request("GET", "/events", headers={"Host": "sleepy.localhost", "Accept": "text/event-stream"})
    response = stream.getresponse()
    assert response.readline() == b"data: tick\n"
    ok(box, "sleep:set", sleepy, "after=1s")
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert b"tick" in response.readline() + response.readline()
        assert not box.json("sleep:report", sleepy)["asleep"]
    stream.close()
    eventually(lambda: is_asleep(box, sleepy), 20)
    ok(box, "sleep:set", sleepy, "after=1h")
    assert box.get(sleepy, timeout=30).status == 200


def test_an_app_that_is_used_does_not_sleep_and_loses_nothing(box: Box, sleepy: str) -> None:
    with Prober(box, sleepy) as prober:
        for _ in range(3):
            done = box.ssh("sleep:now", sleepy)
            assert done.status != 0 and "requests are under way" in done.err
    assert prober.failures == [] and set(prober.pages) == {"hello"}
    assert set(states(box, sleepy).values()) == {"running"}


def test_workers_may_sleep_too_and_commands_keep_it_awake(box: Box, sleepy: str) -> None:
    ok(box, "sleep:set", sleepy, "workers=yes")
    put_to_sleep(box, sleepy)
    assert set(states(box, sleepy).values()) == {"asleep"}
    entered = box.ssh("enter", sleepy, "web.1", "true")
    assert entered.status != 0 and "is asleep" in entered.err and "ps:wake" in entered.err
    refused = box.ssh("ps:forward", sleepy)
    assert refused.status == 1 and "sleepy is asleep" in refused.err and "ps:wake sleepy" in refused.err, refused
    assert "is awake after" in ok(box, "ps:wake", sleepy)
    assert set(states(box, sleepy).values()) == {"running"}
    with _forwarded(box, sleepy):
        refused = box.ssh("sleep:now", sleepy)
        assert refused.status == 1 and "cannot sleep now" in refused.err, refused
    put_to_sleep_soon(box, sleepy)
    ok(box, "ps:wake", sleepy)
    ok(box, "run:detached", sleepy, "sleep", "60")
    refused = box.ssh("sleep:now", sleepy)
    assert refused.status != 0 and "runs a command" in refused.err
    ok(box, "run:stop", sleepy, "1")
    ok(box, "sleep:set", sleepy, "workers=no")


@contextmanager
def _forwarded(box: Box, name: str) -> Iterator[None]:
    """A connection to its port by `ssh -W`, with nothing on it."""
    words = [*box.ssh_command(), "-p", str(box.ssh_port), "-W", f"{name}:5000", f"{box.user}@127.0.0.1"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: process.poll() is not None or bool(told(box, name, "app.forwarded")))
        assert process.poll() is None
        yield
    finally:
        process.kill()
        process.communicate(timeout=20)


def put_to_sleep_soon(box: Box, name: str) -> None:
    eventually(lambda: box.ssh("sleep:now", name).status == 0, 30)
    assert is_asleep(box, name)


def test_what_was_done_to_its_containers_is_put_right(box: Box, sleepy: str) -> None:
    put_to_sleep(box, sleepy)
    [first, second] = [i["name"] for i in box.json("ps:report", sleepy)["instances"] if i["instance"].startswith("web")]
    docker("DELETE", f"/containers/{first}?force=1")
    docker("POST", f"/containers/{second}/start")
    eventually(lambda: docker("GET", f"/containers/{second}/json")["State"]["Status"] == "exited", 30)
    box.settles()
    box.kill_nginx()
    eventually(lambda: _status(box, sleepy) == 200, 30)
    assert [i["name"] for i in box.json("ps:report", sleepy)["instances"] if i["instance"] == "web.1"] == [first]
    assert set(states(box, sleepy).values()) == {"running"}


def _status(box: Box, name: str) -> int:
    try:
        return box.get(name, timeout=30).status
    except OSError:
        return 0


def test_an_instance_that_the_engine_does_not_start_again_is_made_anew(box: Box, sleepy: str) -> None:
    """As it happens when the engine dies in the middle of a start: it takes the task for one that is there already."""
    put_to_sleep(box, sleepy)
    broken = next(i["name"] for i in box.json("ps:report", sleepy)["instances"] if i["instance"] == "web.1")
    shutil.rmtree(docker("GET", f"/containers/{broken}/json")["GraphDriver"]["Data"]["UpperDir"])
    assert box.get(sleepy, timeout=30).status == 200
    assert f"{broken} cannot be woken" in box.log()
    assert set(states(box, sleepy).values()) == {"running"}
    box.settles()


def test_a_daemon_killed_while_somebody_is_held(box: Box, sleepy: str) -> None:
    put_to_sleep(box, sleepy)
    box.kill()
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(box.get(sleepy, timeout=40)))
    asking.start()
    time.sleep(0.5)
    assert answers == []
    box.start()
    asking.join(40)
    assert [answer.status for answer in answers] == [200]


def test_killed_at_any_point_on_the_way_nobody_is_lost(box: Box, sleepy: str) -> None:
    def restart(point: str) -> None:
        assert box.process is not None
        assert box.process.wait(30) == -signal.SIGKILL
        box.start(failpoint=f"{point}:kill" if point else "")

    def ask() -> Future[Answer]:
        return pool.submit(box.get, sleepy, timeout=40)

    with ThreadPoolExecutor(3) as pool:
        assert box.stop() == 0
        box.start(failpoint="sleep-routed:kill")
        assert box.ssh("sleep:now", sleepy).status != 0
        first = ask()
        restart("sleep-written")
        assert first.result().status == 200
        assert box.ssh("sleep:now", sleepy).status != 0
        second = ask()
        restart("wake-started")
        restart("wake-routed")
        assert second.result().status == 200  # although nobody has written down that it is awake
        third = ask()
        restart("")
        assert third.result().status == 200
    assert told(box, sleepy, "app.woke")[-1]["reason"] == "paasd stopped while it was being woken"
    box.settles()
    assert set(states(box, sleepy).values()) == {"running"}


def test_changes_of_a_sleeping_app_go_live_and_leave_it_awake(box: Box, sleepy: str) -> None:
    put_to_sleep(box, sleepy)
    ok(box, "ps:scale", sleepy, "web=1", "worker=0")
    assert states(box, sleepy) == {"web.1": "running"}
    ok(box, "deploy:set", sleepy, "strategy", "recreate")
    put_to_sleep(box, sleepy)
    ok(box, "config:set", sleepy, "A=1")
    assert box.get(sleepy).text == "hello" and states(box, sleepy) == {"web.1": "running"}
    ok(box, "deploy:set", sleepy, "strategy", "canary")
    put_to_sleep(box, sleepy)
    ok(box, "config:set", sleepy, "A=2")
    assert box.get(sleepy).text == "hello" and states(box, sleepy) == {"web.1": "running"}
    ok(box, "deploy:set", sleepy, "strategy", "rolling")
    put_to_sleep(box, sleepy)
    done = box.push(box.repository(app(f"{_SERVER}\nserve()", body="pushed")), sleepy, "+main")
    assert done.status == 0, done.all
    assert "is asleep; it is woken" in done.all and told(box, sleepy, "app.woke")[-1]["reason"] == "a push"
    assert box.get(sleepy).text == "pushed" and states(box, sleepy) == {"web.1": "running"}
    put_to_sleep(box, sleepy)
    ok(box, "ps:stop", sleepy)
    assert box.get(sleepy).status == 503 and not box.json("apps:info", sleepy)["asleep"]
    ok(box, "ps:start", sleepy)
    put_to_sleep(box, sleepy)
    ok(box, "apps:rename", sleepy, "renamed")
    assert box.get("renamed", timeout=30).status == 200
    put_to_sleep(box, "renamed")
    ok(box, "sleep:off", "renamed")
    assert states(box, "renamed") == {"web.1": "running"} and box.json("sleep:report") == []
    box.settles()


def test_without_holding_it_is_woken_all_the_same(box: Box, sleepy: str) -> None:
    name = "renamed"
    ok(box, "sleep:set", name, "after=1h", "hold=0")
    put_to_sleep(box, name)
    answer = box.get(name, headers={"Accept": "application/json"})
    assert (answer.status, json.loads(answer.text)["code"]) == (503, "waking")
    eventually(lambda: not box.json("sleep:report", name)["asleep"])
    assert box.get(name).status == 200
    assert told(box, name, "app.woke")[-1]["reason"] == "a request came"


def test_an_app_that_does_not_start_again_is_told_of(box: Box) -> None:
    assert box.push(box.repository(app(_ONCE)), "once").status == 0
    ok(box, "sleep:set", "once", "after=1h", "hold=20s")
    put_to_sleep(box, "once")
    started = time.monotonic()
    answer = box.get("once", timeout=30, headers={"Accept": "application/json"})
    assert (answer.status, json.loads(answer.text)["code"]) == (503, "not-woken")
    assert time.monotonic() - started < 20
    [failed] = told(box, "once", "app.wake_failed")
    assert "exited with status 3" in failed["reason"] and failed["again_in"] == 5
    assert is_asleep(box, "once") and box.get("once", headers={"Accept": "text/html"}).status == 503
    assert box.ssh("ps:wake", "once").status != 0
    ok(box, "ps:restart", "once")
    assert box.get("once").status == 200
    ok(box, "sleep:set", "once", "hold=0")
    put_to_sleep(box, "once")
    waking = box.get("once", headers={"Accept": "application/json"})
    assert (waking.status, json.loads(waking.text)["code"]) == (503, "waking")
    ok(box, "apps:destroy", "once", "--force")
    box.settles()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hold=5s"], "when the app shall sleep is not said"),
        (["after=0"], "after must be"),
        (["after=30m", "hold=1h"], "hold must be"),
        (["after=30m", "workers=some"], "workers must be"),
        (["colour=blue"], "there is no sleep setting"),
        (["after"], "key=value"),
    ],
)
def test_what_makes_no_rule_is_refused(box: Box, words: list[str], said: str) -> None:
    box.ssh("apps:create", "ruled")
    done = box.ssh("sleep:set", "ruled", *words)
    assert done.status != 0 and said in done.err, done.err
    assert box.json("sleep:report", "ruled")["rule"] is None
