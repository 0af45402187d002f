"""Commands beside the instances: attached, on their own, and inside a running instance."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.apps import app as small_app
from tests.box import Box, docker, eventually

pytestmark = pytest.mark.engine

PROCFILE = "web: python3 -u app.py\nworker: sleep 3600\ntell: echo told\n"
FILES = small_app(Procfile=PROCFILE, app__json='{"formation": {"worker": {"quantity": 1}}}')


@pytest.fixture(scope="module")
def app(box: Box) -> Iterator[str]:
    done = box.push(box.repository(FILES), "oneoffs")
    assert done.status == 0, done
    yield "oneoffs"
    box.ssh("apps:destroy", "oneoffs", "--force")


def ok(box: Box, *words: str, stdin: str = "") -> str:
    done = box.ssh(*words, stdin=stdin)
    assert done.status == 0, (words, done)
    return done.out


def detached(box: Box, app: str, script: str, *options: str) -> int:
    done = box.local("run:detached", *options, "--json", app, "sh", "-c", script)
    assert done.status == 0, done
    return int(json.loads(done.out)["number"])


def run_of(box: Box, app: str, number: int) -> dict[str, Any]:
    return dict(box.api("GET", f"/apps/{app}/runs/{number}"))


def ended(box: Box, app: str, number: int) -> dict[str, Any]:
    """The run once it has ended, its container gone."""
    run = eventually(lambda: (found := run_of(box, app, number))["status"] != "running" and found)
    eventually(lambda: "Id" not in docker("GET", f"/containers/{run['container']}/json"))
    return dict(run)


def events_of(box: Box, app: str, type: str) -> list[dict[str, Any]]:
    return [e["data"] for e in box.api("GET", f"/events?app={app}&limit=200")["items"] if e["type"] == type]


def test_variables_are_for_one_command_and_beat_config_vars(box: Box, app: str) -> None:
    ok(box, "config:set", "--no-restart", app, "WORD=config")
    done = box.ssh("run", "--env", "WORD=own", "-e", "'ODD=a b=c'", app, "sh", "-c", "'echo $WORD $ODD $DYNO'")
    number = box.json("run:list", app)[0]["number"]
    assert done.out == f"own a b=c run.{number}\n"
    assert "own" not in json.dumps(box.json("run:list", app))
    refused = box.ssh("run", "--env", "1BAD=x", app, "true")
    assert refused.status == 1
    assert "invalid config var name" in refused.err
    assert box.ssh("run", "--env", "NOTHING", app, "true").status == 1


def test_a_command_ends_when_its_time_is_over(box: Box, app: str) -> None:
    done = box.ssh("run", "--timeout", "1s", app, "sleep", "60", timeout=30)
    assert done.status == 1
    assert "it took longer than 1 s" in done.err
    assert box.json("run:list", app)[0]["status"] == "timed out"
    refused = box.ssh("run", "--timeout", "8d", app, "true")
    assert "the timeout must be a time such as" in refused.err


def test_attached_commands_are_listed_stopped_and_remembered(box: Box, app: str) -> None:
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "run", app, "sleep", "600"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    running = eventually(lambda: box.json("run:list", app, "--running"))
    assert [(run["kind"], run["command"]) for run in running] == [("attached", "sleep 600")]
    eventually(lambda: docker("GET", f"/containers/{running[0]['container']}/json").get("State", {}).get("Running"))
    assert "wrote to its own client" in box.ssh("run:logs", app, str(running[0]["number"])).err
    ok(box, "run:stop", app, str(running[0]["number"]))
    assert client.wait(30) == 143
    assert client.stdin and client.stdout
    client.stdin.close()
    client.stdout.close()
    run = ended(box, app, running[0]["number"])
    assert (run["status"], run["exit_code"], run["reason"]) == ("stopped", 143, "stopped by admin")
    again = box.ssh("run:stop", app, str(run["number"]))
    assert "has ended (stopped)" in again.err
    assert "has no run 9999" in box.ssh("run:stop", app, "9999").err


def test_a_detached_command_keeps_its_status_and_output(box: Box, app: str) -> None:
    number = detached(box, app, "echo $GREETING; echo err >&2; exit 3", "--env", "GREETING=hi")
    run = ended(box, app, number)
    assert (run["status"], run["exit_code"], run["kind"], run["entry"]) == ("failed", 3, "detached", None)
    assert run["seconds"] < 60
    assert sorted(ok(box, "run:logs", app, str(number)).split()) == ["err", "hi"]
    assert "failed (3)" in ok(box, "run:list", app)
    assert {"run": number, "status": "failed", "exit_code": 3, "reason": ""} in events_of(box, app, "run.completed")


def test_a_detached_command_is_followed_to_its_end(box: Box, app: str) -> None:
    number = detached(box, app, "for i in 1 2 3; do echo line $i; sleep 0.3; done")
    assert ok(box, "run:logs", app, str(number), "-t") == "line 1\nline 2\nline 3\n"
    assert ended(box, app, number)["status"] == "succeeded"


def test_a_process_type_of_the_procfile_can_be_run_detached(box: Box, app: str) -> None:
    done = box.ssh("run:detached", app, "tell", "me")
    number = box.json("run:list", app)[0]["number"]
    assert f"Run {number} of {app} has started" in done.out
    ended(box, app, number)
    assert ok(box, "run:logs", app, str(number)) == "told me\n"


def test_a_detached_command_is_stopped_by_hand_and_by_its_time(box: Box, app: str) -> None:
    first = detached(box, app, "echo begun; exec sleep 600")
    second = detached(box, app, "echo begun; exec sleep 600", "--timeout", "2s")
    eventually(lambda: box.ssh("run:logs", app, str(first)).out == "begun\n")
    ok(box, "run:stop", app, str(first))
    stopped, late = ended(box, app, first), ended(box, app, second)
    assert (stopped["status"], stopped["exit_code"]) == ("stopped", 143)
    assert (late["status"], late["reason"]) == ("timed out", "it took longer than 2 s")
    assert ok(box, "run:logs", app, str(second)) == "begun\n"


def test_a_command_that_cannot_start_says_so(box: Box, app: str) -> None:
    number = detached(box, app, "true")
    ended(box, app, number)
    assert box.ssh("run:detached", app, "''").status == 1
    never = box.ssh("apps:create", "oneoffs-empty")
    assert never.status == 0, never
    refused = box.ssh("run:detached", "oneoffs-empty", "true")
    assert "has not been deployed yet" in refused.err
    ok(box, "apps:destroy", "oneoffs-empty", "--force")


def test_enter_runs_a_command_in_a_running_instance(box: Box, app: str) -> None:
    assert ok(box, "enter", app, "printenv", "DYNO") == "web.1\n"
    assert ok(box, "enter", app, "worker", "printenv", "DYNO") == "worker.1\n"
    done = box.ssh("enter", app, "worker.1", "sh", "-c", "'cat; exit 4'", stdin="through")
    assert (done.status, done.out) == (4, "through")
    missing = box.ssh("enter", app, "web.7")
    assert missing.status == 1
    assert "no live instance 'web.7'; there is web.1, worker.1" in missing.err
    assert events_of(box, app, "app.entered")[-1]["instance"] == "worker.1"


def test_enter_opens_a_shell_on_a_terminal(box: Box, app: str) -> None:
    controller, terminal = pty.openpty()
    command = [*box.ssh_command(), "-tt", "-p", str(box.ssh_port), "paasd@127.0.0.1", "enter", app, "web.1"]
    client = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    try:
        read_until(controller, b"# ")
        os.write(controller, b"echo $DYNO-$((6*7)); tty; exit 3\n")
        assert b"/dev/pts/" in read_until(controller, b"exit\r\n", after=b"web.1-42")
        assert client.wait(20) == 3
    finally:
        client.kill()
        client.wait(20)
        os.close(controller)


@pytest.mark.parametrize("options", [(), ("-tt",)])
def test_what_was_started_ends_with_its_client(box: Box, app: str, options: tuple[str, ...]) -> None:
    name = next(i["name"] for i in box.json("ps:report", app)["instances"] if i["instance"] == "web.1")
    base = [*box.ssh_command(), *options, "-p", str(box.ssh_port), "paasd@127.0.0.1"]
    controller, terminal = pty.openpty()
    clients = [
        subprocess.Popen([*base, *words], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
        for words in (("enter", app, "sleep", "4321"), ("run", app, "sleep", "4321"))
    ]
    os.close(terminal)
    eventually(lambda: "4321" in processes(name))
    (run,) = eventually(lambda: box.json("run:list", app, "--running"))
    for client in clients:
        client.kill()
        client.wait(20)
    os.close(controller)
    eventually(lambda: "4321" not in processes(name))
    assert ended(box, app, run["number"])["reason"] == "its client left"


def test_an_instance_is_inspected_without_secrets(box: Box, app: str) -> None:
    ok(box, "config:set", app, "PASSWORD=hunter2")
    found = json.loads(ok(box, "ps:inspect", app, "web.1"))
    assert found["instance"] == "web.1"
    assert found["engine"]["State"]["Running"] is True
    assert {"PASSWORD=****", "DYNO=****"} <= set(found["engine"]["Config"]["Env"])
    assert "hunter2" not in json.dumps(found)
    assert box.ssh("ps:inspect", app, "web.9").status == 1


def processes(container: str) -> str:
    return json.dumps(docker("GET", f"/containers/{container}/top"))


def read_until(fd: int, wanted: bytes, after: bytes = b"") -> bytes:
    seen, deadline = b"", time.monotonic() + 20
    while wanted not in seen.partition(after)[2] if after else wanted not in seen:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, seen
        seen += os.read(fd, 4096)
    return seen


def test_detached_commands_outlive_the_daemon_and_attached_ones_do_not(new_box: Callable[..., Box]) -> None:
    box = new_box("[keep]\nruns = 5\n").start()
    assert box.push(box.repository(FILES), "blog").status == 0
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "run", "blog", "sleep", "600"]
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: box.json("run:list", "blog", "--running"))
    attached = box.json("run:list", "blog", "--running")[0]
    going, quick = detached(box, "blog", "sleep 600"), detached(box, "blog", "sleep 2; echo over; exit 6")
    late = detached(box, "blog", "exec sleep 600", "--timeout", "3s")
    box.kill()
    client.wait(20)
    eventually(lambda: not container_runs(run_name(box, quick)), 30)
    box.start()
    assert run_of(box, "blog", attached["number"])["status"] == "lost"
    eventually(lambda: "Id" not in docker("GET", f"/containers/{attached['container']}/json"))
    over = ended(box, "blog", quick)
    assert (over["status"], over["exit_code"]) == ("failed", 6)
    assert over["seconds"] < 20
    assert box.ssh("run:logs", "blog", str(quick)).out == "over\n"
    assert ended(box, "blog", late)["status"] == "timed out"
    assert run_of(box, "blog", going)["status"] == "running"
    assert container_runs(run_of(box, "blog", going)["container"])
    box.ssh("apps:destroy", "blog", "--force")
    eventually(lambda: not box.containers())


def run_name(box: Box, number: int) -> str:
    names = [c["Names"][0].removeprefix("/") for c in box.containers()]
    return next(name for name in names if f"-run-{number}-" in name)


def container_runs(name: str) -> bool:
    return bool(docker("GET", f"/containers/{name}/json")["State"]["Running"])
