"""Checks of live instances: who gets requests, who is restarted, and what people are told."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps import DOCKERFILE
from tests.box import Box, Repository, docker, eventually
from tests.prober import Prober

pytestmark = pytest.mark.engine

_SETTINGS = "[run]\ndrain = 1.0\nstream_drain = 1.0\nstop_timeout = 2\nstart_timeout = 20\nhooks_to = '127.0.0.0/8'\n"

_SERVER = """
import http.server, os, sys, threading, time

state = {"/ready": 200, "/live": 200, "hang": False}
asked = []

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if state["hang"]:
            time.sleep(3600)
        asked.append(self.path)
        if self.path.startswith("/set/"):
            _, _, name, status = self.path.split("/")
            state["/" + name] = int(status)
        if self.path == "/hang":
            state["hang"] = True
        status = state.get(self.path, 200)
        if self.path == "/header" and self.headers.get("X-Check") != "yes":
            status = 403
        body = str(asked.count("/ready")).encode() if self.path == "/asked" else b"hello"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

open("/tmp/well", "w").close()
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box(_SETTINGS).start()
    yield box
    box.close()


@pytest.fixture
def name(box: Box, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"h{zlib.crc32(request.node.name.encode())}"
    yield name
    box.ssh("apps:destroy", name, "--force")


def files(checks: dict[str, Any], web: int = 1) -> dict[str, str]:
    document = {"healthchecks": checks, "formation": {"web": {"quantity": web}}}
    procfile = "web: python3 -u app.py\n"
    return {"Dockerfile": DOCKERFILE, "Procfile": procfile, "app.py": _SERVER, "app.json": json.dumps(document)}


def pushed(box: Box, name: str, checks: dict[str, Any], web: int = 1) -> Repository:
    repository = box.repository(files(checks, web))
    done = box.push(repository, name)
    assert done.status == 0, done.all
    return repository


def instances(box: Box, name: str) -> list[dict[str, Any]]:
    """Addresses and engine states from `ps:report`."""
    return [i for i in box.json("ps:report", name)["instances"] if i["duty"] == "live"]


def ask(instance: dict[str, Any], path: str) -> int:
    """A request to one instance, past the edge."""
    connection = http.client.HTTPConnection(instance["address"], 5000, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def ask_if_up(instance: dict[str, Any], path: str) -> int | None:
    """None while nobody listens, as when its server has only just been started."""
    try:
        return ask(instance, path)
    except ConnectionRefusedError:
        return None


def report(box: Box, name: str) -> dict[str, dict[str, Any]]:
    return {instance["instance"]: instance for instance in box.json("checks:report", name)["instances"]}


def kinds(box: Box, name: str) -> list[str]:
    return [event["type"] for event in box.json("events", name)]


def asked(box: Box, name: str) -> int:
    """How often somebody wanted /ready of web.1."""
    connection = http.client.HTTPConnection(instances(box, name)[0]["address"], 5000, timeout=5)
    try:
        connection.request("GET", "/asked")
        return int(connection.getresponse().read())
    finally:
        connection.close()


def event(box: Box, name: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = [event for event in box.json("events", name) if event["type"] == kind][-1]
    return found


_READY = {"type": "readiness", "path": "/ready", "wait": 1, "attempts": 1, "timeout": 1}
_LIVE = {"type": "liveness", "path": "/live", "wait": 1, "attempts": 2, "timeout": 1}


def test_an_unready_instance_gets_no_requests_until_it_is_ready_again(box: Box, name: str) -> None:
    pushed(box, name, {"web": [_READY]}, web=2)
    first = instances(box, name)[0]
    with Prober(box, name) as prober:
        assert ask(first, "/set/ready/503") == 200
        eventually(lambda: not report(box, name)["web.1"]["ready"])
        eventually(lambda: "instance.unready" in kinds(box, name))
        assert "answered 503" in event(box, name, "instance.unready")["data"]["seen"]
        eventually(lambda: requests_of(box, name, first) is None)
        # Nobody puts it back: the reconciler and doctor want what readiness says.
        box.settles()
        assert ask(first, "/set/ready/200") == 200
        eventually(lambda: report(box, name)["web.1"]["ready"])
        eventually(lambda: requests_of(box, name, first) is not None)
    prober.assert_unbroken()
    assert kinds(box, name)[-2:] == ["instance.unready", "instance.ready"]


def requests_of(box: Box, name: str, instance: dict[str, Any]) -> str | None:
    """The instance's endpoint in the mirror of the edge's route table."""
    lines = (box.data / "edge" / "routes.txt").read_text().splitlines()
    words = next(line.split() for line in lines if line.startswith(f"{name} "))
    return next((word for word in words if word.startswith(f"{instance['address']}:")), None)


def test_an_unready_instance_comes_back_after_successes_in_a_row(box: Box, name: str) -> None:
    pushed(box, name, {"web": [{**_READY, "successes": 4, "status": 204}, {"path": "/", "wait": 1}]}, web=2)
    first, second = instances(box, name)
    for instance in (first, second):
        ask(instance, "/set/ready/204")
    eventually(lambda: all(instance["ready"] for instance in report(box, name).values()))
    assert ask(first, "/set/ready/200") == 200
    eventually(lambda: not report(box, name)["web.1"]["ready"])
    told = event(box, name, "instance.unready")["data"]["seen"]
    assert told == "GET /ready answered 200, expected 204"
    assert told in box.ssh("checks:report", name).out
    assert {c["seen"] for c in box.json("checks:run", name) if c["instance"] == "web.1"} > {told}
    ask(first, "/set/ready/204")
    states = set()

    def is_back() -> bool:
        found = report(box, name)["web.1"]
        states.add(next(check["state"] for check in found["checks"] if check["type"] == "readiness"))
        return bool(found["ready"])

    eventually(is_back)
    assert states & {f"failing, {n} of 4 successes seen" for n in (1, 2, 3)}
    history = next(c for c in report(box, name)["web.1"]["checks"] if c["type"] == "readiness")["history"]
    assert "-++++" in "".join("+" if sample["ok"] else "-" for sample in history)
    assert event(box, name, "instance.ready")["data"]["seen"] == "GET /ready answered 204"


def test_startup_wants_its_successes_in_a_row(box: Box, name: str) -> None:
    often = {"path": "/ready", "successes": 3, "wait": 0.3}
    repository = pushed(box, name, {"web": [often]})
    assert asked(box, name) >= 3
    text = files({"web": [{**often, "name": "slow", "wait": 60}]})["app.json"]
    repository.commit({"app.json": text})
    assert box.ssh("deploy:set", name, "start-timeout", "5").status == 0
    done = box.push(repository, name)
    assert done.status != 0
    assert "web.1: check slow: GET /ready passed 1 of 3 times in a row in time" in done.all, done.all
    repository.commit(
        {"app.json": files({"web": [{**often, "status": "201 4xx", "attempts": 2, "wait": 0}]})["app.json"]}
    )
    done = box.push(repository, name)
    assert done.status != 0 and "GET /ready answered 200, expected 201 or 4xx (2 times)" in done.all, done.all
    assert box.get(name).status == 200


def test_when_none_is_ready_all_go_on_and_it_is_told(box: Box, name: str) -> None:
    pushed(box, name, {"web": [_READY]})
    only = instances(box, name)[0]
    ask(only, "/set/ready/500")
    eventually(lambda: "instance.unready" in kinds(box, name))
    assert "no other instance is ready" in event(box, name, "instance.unready")["data"]["note"]
    assert box.get(name).status == 200 and requests_of(box, name, only) is not None
    box.ssh("checks:disable", name, "web", "--type", "readiness")
    eventually(lambda: report(box, name)["web.1"]["ready"])
    assert [check["type"] for check in report(box, name)["web.1"]["checks"]] == ["startup"]


def test_a_hanging_instance_is_restarted_while_the_other_serves(box: Box, name: str) -> None:
    pushed(box, name, {"web": [_LIVE]}, web=2)
    box.ssh("deploy:set", name, "stop-timeout", "1")
    first, second = instances(box, name)
    container = docker("GET", f"/containers/{first['name']}/json")["Id"]
    ask(first, "/hang")
    eventually(lambda: "instance.restarted" in kinds(box, name), 40)
    assert docker("GET", f"/containers/{first['name']}/json")["Id"] != container
    seen = kinds(box, name)
    assert seen.index("instance.unhealthy") < seen.index("instance.restarting") < seen.index("instance.restarted")
    assert "no answer in 1 s" in event(box, name, "instance.restarting")["data"]["seen"]
    after = instances(box, name)
    assert [(i["name"], i["address"]) for i in after] == [(i["name"], i["address"]) for i in (first, second)]
    assert after[1]["started_at"] == second["started_at"]
    eventually(lambda: report(box, name)["web.1"]["ready"] and requests_of(box, name, first) is not None)
    assert report(box, name)["web.1"]["restarts"] == 1
    assert ask(first, "/") == 200
    box.settles()


def test_checks_that_ask_the_same_are_answered_by_one_request(box: Box, name: str) -> None:
    pushed(box, name, {"web": [{**_LIVE, "path": "/ready"}, _READY]})
    before = asked(box, name)

    def lengths() -> list[int]:
        return [len(check["history"]) for check in report(box, name)["web.1"]["checks"] if check["type"] != "startup"]

    eventually(lambda: min(lengths()) >= 4)
    sent = asked(box, name) - before
    live, ready = lengths()  # after it was counted: checks go on meanwhile
    assert abs(live - ready) <= 1
    assert sent <= max(live, ready) + 1
    ask(instances(box, name)[0], "/set/ready/503")
    eventually(lambda: "instance.unhealthy" in kinds(box, name) and "instance.unready" in kinds(box, name))


def test_commands_headers_content_and_listening(box: Box, name: str) -> None:
    command = {"type": "liveness", "name": "well", "command": ["test", "-e", "/tmp/well"], "wait": 1, "attempts": 1}
    header = {"path": "/header", "content": "hello", "httpHeaders": [{"name": "X-Check", "value": "yes"}]}
    listed = [header, {"type": "startup", "listening": True}, {"command": ["true"]}, command]
    pushed(box, name, {"web": listed})
    found = {check["check"]: check for check in box.json("checks:run", name)}
    assert {title: check["ok"] for title, check in found.items()} == {
        "GET /header": True,
        "port 5000": True,
        "command true": True,
        "well": True,
    }
    assert "passed" in box.ssh("checks:run", name).out
    only = instances(box, name)[0]
    execution = docker("POST", f"/containers/{only['name']}/exec", {"Cmd": ["rm", "/tmp/well"]})
    docker("POST", f"/exec/{execution['Id']}/start", {"Detach": True})
    eventually(lambda: "instance.restarted" in kinds(box, name), 40)
    told = event(box, name, "instance.unhealthy")["data"]
    assert told["check"] == "well" and "ended with status 1" in told["seen"]


def test_a_warning_is_told_and_nothing_else_happens(box: Box, name: str) -> None:
    warning = {"type": "liveness", "path": "/live", "warn": True, "wait": 1, "attempts": 1}
    repository = box.repository(files({"web": [{"path": "/nothing"}, warning]}))
    done = box.push(repository, name)
    assert done.status == 0, done.all
    only = instances(box, name)[0]
    ask(only, "/set/live/500")
    eventually(lambda: "instance.warning" in kinds(box, name))
    ask(only, "/set/live/200")
    eventually(lambda: "instance.warning_over" in kinds(box, name))
    assert report(box, name)["web.1"]["restarts"] == 0 and report(box, name)["web.1"]["ready"]
    warned = box.repository(files({"web": [{"path": "/set/x/500", "warn": True}, {"path": "/x"}]}))
    warned.commit({"app.json": json.dumps({"healthchecks": {"web": [{"path": "/header", "warn": True, "wait": 0}]}})})
    done = box.push(warned, name, "main", "--force")
    assert done.status == 0 and "answered 403" in done.all and "only a warning" in done.all, done.all


def test_all_startup_checks_must_pass_not_only_the_first(box: Box, name: str) -> None:
    second = {"name": "second", "path": "/header", "attempts": 2, "wait": 0}
    done = box.push(box.repository(files({"web": [{"path": "/"}, second]})), name)
    assert done.status != 0
    assert "web.1: check second: GET /header answered 403, expected 200 to 399 (2 times)" in done.all


class Receiver:
    """Takes what is posted to it."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        taken = self.taken

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/failed?token=secret"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_what_a_failure_sets_off(box: Box, name: str, receiver: Receiver) -> None:
    hook = {"command": ["sh", "-c", "echo it was $DYNO"], "url": receiver.url}
    bad = {"name": "bad", "path": "/header", "attempts": 1, "onFailure": hook}
    inside = {"path": "/header", "attempts": 1, "warn": True, "onFailure": {"url": "http://169.254.169.254/latest"}}
    done = box.push(box.repository(files({"web": [{**bad, "warn": True}, inside]})), name)
    assert done.status == 0, done.all
    assert "web.1: onFailure command sh -c echo it was $DYNO ended with status 0: it was web.1" in done.all
    assert " answered 204" in done.all and "secret" not in done.all and "/failed" not in done.all
    assert "POST http://169.254.169.254 was not sent: 169.254.169.254 is at" in done.all
    assert "which is no public address" in done.all and "latest" not in done.all
    assert (receiver.taken[0]["check_name"], receiver.taken[0]["instance"]) == ("bad", "web.1")
    assert "GET /header answered 403" in receiver.taken[0]["errors"][0]
    done = box.push(box.repository(files({"web": [bad]})), name, "main", "--force")
    assert done.status != 0 and "ended with status 0: it was web.1" in done.all and len(receiver.taken) == 2, done.all

    live = {"type": "liveness", "path": "/live", "wait": 1, "attempts": 1, "onFailure": hook}
    done = box.push(box.repository(files({"web": [{"path": "/"}, live]})), name, "main", "--force")
    assert done.status == 0, done.all
    box.get(name, "/set/live/500")
    eventually(lambda: len(receiver.taken) == 3)
    assert receiver.taken[2]["type"] == "liveness" and "answered 500" in receiver.taken[2]["errors"][0]
    kinds = eventually(lambda: [e["type"] for e in box.json("events", name)] if restarted(box, name) else None)
    assert kinds.count("instance.failure_hook") == 2
    assert kinds.index("instance.failure_hook") < kinds.index("instance.restarting"), "before it is gone"


def restarted(box: Box, name: str) -> bool:
    return "instance.restarted" in [event["type"] for event in box.json("events", name)]


def test_checks_are_set_reported_and_switched(box: Box, name: str) -> None:
    pushed(box, name, {"web": [{"path": "/", "onFailure": {"url": "http://x"}}]})
    assert box.ssh("checks:set", name, "web", "--type", "readiness", "--path", "/ready", "--wait", "1").status == 0
    eventually(lambda: "passing" in [check["state"] for check in report(box, name)["web.1"]["checks"]])
    text = box.ssh("checks:report", name).out
    assert "readiness" in text and "GET /ready answered 200" in text and "ms" in text
    history = report(box, name)["web.1"]["checks"][1]["history"]
    assert history and all(sample["ok"] and sample["seconds"] > 0 for sample in history)
    assert box.ssh("checks:set", name, "web", "--type", "readiness", "--command", '\'["test", "x"]\'').status == 0
    live = box.json("checks:report", name)["live"]["web"]
    assert {"type": "readiness", "wait": 1, "command": ["test", "x"]} in live
    assert box.ssh("checks:disable", name).status == 0
    assert report(box, name)["web.1"]["checks"][0]["check"] == "up for 3 s"
    assert "off for all" in box.ssh("checks:enable", name, "web").err
    assert box.ssh("checks:enable", name).status == 0
    assert len(report(box, name)["web.1"]["checks"]) == 2
    for option, said in (("--uptime", "for ever"), ("--successes", "at the first success")):
        refused = box.ssh("checks:set", name, "web", "--type", "liveness", option, "5")
        assert refused.status != 0 and said in refused.err
    readiness = ("checks:set", name, "web", "--type", "readiness")
    refused = box.ssh(*readiness, "--path", "/ready", "--status", "20")
    assert refused.status != 0 and "status must be a status from 200 to 599" in refused.err
    assert box.ssh(*readiness, "--path", "/ready", "--status", "'2xx 404'", "--successes", "2").status == 0
    found = {"type": "readiness", "wait": 1, "path": "/ready", "status": "2xx 404", "successes": 2}
    assert found in box.json("checks:report", name)["live"]["web"]
    assert "2xx 404" in box.ssh("checks:report", name).out


def test_an_answer_is_not_expected_of_a_check_that_asks_for_none(box: Box, name: str) -> None:
    ours = {"type": "readiness", "command": ["true"], "wait": 1}
    pushed(box, name, {"web": [{"path": "/"}, ours]})
    readiness = ("checks:set", name, "web", "--type", "readiness")
    refused = box.ssh(*readiness, "--status", "204")
    assert refused.status != 0 and f"{' '.join(readiness)} --path / --status 204" in refused.err, refused
    assert ours in live_checks(box, name)
    assert box.ssh(*readiness, "--path", "/ready", "--status", "200").status == 0
    assert {"type": "readiness", "wait": 1, "path": "/ready", "status": "200"} in live_checks(box, name)
    refused = box.ssh(*readiness, "--path", "''")
    assert refused.status != 0 and f"{' '.join(readiness)} --status ''" in refused.err, refused
    assert box.ssh(*readiness, "--path", "''", "--status", "''").status == 0
    assert ours in live_checks(box, name)


def live_checks(box: Box, name: str) -> list[dict[str, Any]]:
    return list(box.json("checks:report", name)["live"]["web"])


def test_a_restart_that_a_killed_daemon_left_half_done_is_finished(new_box: Any) -> None:
    box = new_box(_SETTINGS).start("unhealthy-stopped:kill")
    pushed(box, "halfway", {"web": [_LIVE]}, web=2)
    first = instances(box, "halfway")[0]
    ask(first, "/set/live/500")
    assert box.process.wait(30) != 0
    assert first["name"] not in {name for c in box.containers() for name in (n.strip("/") for n in c["Names"])}
    box.start()
    box.settles()
    assert eventually(lambda: ask_if_up(first, "/live")) == 200
    assert box.get("halfway").status == 200
