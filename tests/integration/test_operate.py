"""Every command as a user types it: over SSH, on the box, with --json, --help and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from paasd.cli.local import program
from paasd.cli.root import root
from tests.box import ROOT, Box, Repository, eventually

pytestmark = pytest.mark.engine

APP = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ.get('WORD', 'nothing')} {os.environ['PAASD_RELEASE']} {os.environ['DYNO']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        print("request", self.path, flush=True)
print("starting", os.environ["DYNO"], flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
WORKER = "import os, time\nprint('working as', os.environ['DYNO'], flush=True)\ntime.sleep(3600)\n"


@pytest.fixture(scope="module")
def repository(box: Box) -> Repository:
    files = {
        "app.py": APP,
        "worker.py": WORKER,
        "requirements.txt": "",
        "Procfile": "web: python app.py\nworker: python worker.py\nhello: echo hello from the console\n",
    }
    return box.repository(files)


@pytest.fixture(scope="module")
def app(box: Box, repository: Repository) -> Iterator[str]:
    done = box.push(repository, "operate")
    assert done.status == 0, done
    yield "operate"
    box.ssh("apps:destroy", "operate", "--force")


def ok(box: Box, *words: str, stdin: str = "") -> str:
    done = box.ssh(*words, stdin=stdin)
    assert done.status == 0, (words, done)
    return done.out


def test_config_vars_are_one_release_and_reach_the_app(box: Box, app: str) -> None:
    before = box.json("apps:info", app)["release"]
    printed = ok(box, "config:set", app, "WORD=first", "OTHER=x")
    assert "-----> Setting config vars" in printed
    assert int(box.json("apps:info", app)["release"][1:]) == int(before[1:]) + 1
    assert box.get(app).text.startswith("first ")
    assert ok(box, "config:get", app, "WORD") == "first\n"
    assert "Nothing changed" in ok(box, "config:set", app, "WORD=first")
    assert "OTHER" in ok(box, "config:show", app)
    ok(box, "config:unset", app, "OTHER")
    assert "OTHER" not in box.json("config:show", app)
    missing = box.ssh("config:get", app, "OTHER")
    assert missing.status == 1
    assert "config:show" in missing.err


def test_config_without_restart_waits_for_the_next_release(box: Box, app: str) -> None:
    ok(box, "config:set", app, "WORD=old")
    ok(box, "config:set", "--no-restart", app, "WORD=new")
    assert box.get(app).text.startswith("old ")
    ok(box, "config:set", app, "TRIGGER=1")
    assert box.get(app).text.startswith("new ")


def test_exported_config_can_be_imported(box: Box, app: str) -> None:
    tricky = 'it\'s "quoted" $(id) `x` \\ ünï\nsecond line'
    ok(box, "config:import", app, stdin=json.dumps({"TRICKY": tricky, "PLAIN": "1"}))
    assert box.json("config:show", app)["TRICKY"] == tricky
    exported = ok(box, "config:export", app)
    ok(box, "config:unset", "--no-restart", app, "TRICKY", "PLAIN")
    ok(box, "config:import", "--no-restart", app, stdin=exported)
    assert box.json("config:show", app)["TRICKY"] == tricky
    shell = ok(box, "config:export", app, "--format", "shell")
    found = subprocess.run(["sh", "-c", f'{shell}\nprintf %s "$TRICKY"'], capture_output=True, text=True, check=True)
    assert found.stdout == tricky


def test_scaling_starts_what_is_missing_and_leaves_the_rest_alone(box: Box, app: str) -> None:
    first = {i["name"] for i in box.json("ps:report", app)["instances"] if i["duty"] == "live"}
    ok(box, "ps:scale", app, "web=2", "worker=1")
    live = [i for i in box.json("ps:report", app)["instances"] if i["duty"] == "live"]
    assert sorted(i["instance"] for i in live) == ["web.1", "web.2", "worker.1"]
    assert first <= {i["name"] for i in live}
    assert {box.get(app).text.split()[-1] for _ in range(20)} == {"web.1", "web.2"}
    assert {"process_type": "web", "quantity": 2} in box.json("ps:scale", app)
    assert "web:  2" in ok(box, "ps:scale", app)
    ok(box, "ps:scale", app, "web=1", "worker=0")
    eventually(lambda: len(box.json("ps:report", app)["instances"]) == 1)


def test_stop_shows_a_page_that_retries_and_start_brings_it_back(box: Box, app: str) -> None:
    ok(box, "ps:stop", app)
    stopped = box.get(app)
    assert stopped.status == 503
    assert "Retry-After" in stopped.headers
    assert box.json("ps:report", app)["instances"] == []
    ok(box, "ps:start", app)
    assert box.get(app).status == 200


def test_restart_replaces_instances(box: Box, app: str) -> None:
    before = {i["name"] for i in box.json("ps:report", app)["instances"] if i["duty"] == "live"}
    ok(box, "ps:restart", app)
    after = {i["name"] for i in box.json("ps:report", app)["instances"] if i["duty"] == "live"}
    assert before and not before & after


def test_rollback_restores_image_and_config(box: Box, app: str, repository: Repository) -> None:
    ok(box, "config:set", app, "WORD=before")
    old = box.json("apps:info", app)["release"]
    repository.commit({"app.py": APP.replace("nothing", "nothing at all")})
    assert box.push(repository, app).status == 0
    ok(box, "config:set", app, "WORD=after")
    printed = ok(box, "rollback", app, old)
    assert f"Rolling back to {old}" in printed
    assert box.get(app).text.startswith("before ")
    assert ok(box, "config:get", app, "WORD") == "before\n"
    listed = box.json("releases", app)
    assert listed[0]["description"] == f"Rollback to {old}"
    assert [r["live"] for r in listed].count(True) == 1
    assert ok(box, "releases:info", app, old).startswith(f"=====> {app} {old}")
    missing = box.ssh("rollback", app, "v999")
    assert missing.status == 1 and "no release v999" in missing.err


def test_logs_merge_instances_and_follow_new_ones(box: Box, app: str) -> None:
    ok(box, "ps:scale", app, "worker=1")
    eventually(lambda: f"{app}[worker.1]: working as worker.1" in ok(box, "logs", app, "-n", "500"))
    assert f"{app}[web.1]: starting web.1" in ok(box, "logs", app, "-n", "500")
    only = ok(box, "logs", app, "-p", "worker", "-q")
    assert only == "working as worker.1\n"
    lines = [json.loads(line) for line in ok(box, "logs", app, "--json").splitlines()]
    assert {line["instance"] for line in lines} >= {"web.1", "worker.1"}
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "logs", app, "-t", "-n", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as following:
        try:
            _until_it_follows(box, app, following)
            ok(box, "ps:restart", app)
            assert _line_with(following, "starting web.1")
        finally:
            following.kill()
    ok(box, "ps:scale", app, "worker=0")


def _until_it_follows(box: Box, app: str, following: subprocess.Popen[bytes]) -> None:
    """What is said before it listens may not be for it."""

    def follows() -> bool:
        box.get(app, "/seen-by-the-follower")
        return _line_with(following, "/seen-by-the-follower", 1)

    eventually(follows)


def _line_with(process: subprocess.Popen[bytes], text: str, seconds: float = 20) -> bool:
    assert process.stdout is not None
    seen, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            seen += os.read(process.stdout.fileno(), 65536)
        if text.encode() in seen:
            return True
    return False


def test_builds_and_deployments_are_listed_with_their_logs(box: Box, app: str) -> None:
    builds = box.json("builds", app)
    assert builds[0]["status"] == "succeeded"
    assert "is live" in ok(box, "builds:log", app)
    assert "Building operate with the buildpack python" in ok(box, "builds:log", app, str(builds[-1]["number"]))
    assert box.json("deployments", app)[0]["status"] == "succeeded"
    nothing = box.ssh("builds:cancel", app)
    assert nothing.status == 1 and "under way" in nothing.err


def test_domains_serve_the_app_at_once(box: Box, app: str) -> None:
    ok(box, "domains:add", app, "www.operate.test", "operate.test")
    assert box.get(app, host="www.operate.test").status == 200
    assert box.json("domains:list", app) == ["www.operate.test", "operate.test", f"{app}.localhost"]
    ok(box, "domains:remove", app, "www.operate.test")
    assert box.get(app, host="www.operate.test").status == 404
    assert "operate.test" in ok(box, "nginx:show-config", app)
    ok(box, "domains:remove", app, "operate.test")


def test_apps_are_cloned_renamed_and_destroyed_without_a_trace(box: Box, app: str) -> None:
    ok(box, "apps:clone", app, "operate-copy")
    assert box.get("operate-copy").status == 200
    assert box.get(app).status == 200
    renamed = ok(box, "apps:rename", "operate-copy", "operate-moved")
    assert "operate-moved" in renamed
    assert box.get("operate-moved").status == 200
    assert box.get("operate-copy").status == 404
    refused = box.ssh("apps:destroy", "operate-moved", stdin="something else\n")
    assert refused.status == 1 and "nothing was done" in refused.err
    assert box.ssh("apps:destroy", "operate-moved", stdin="operate-moved\n").status == 0
    assert box.get("operate-moved").status == 404
    assert box.ssh("apps:info", "operate-moved").status == 1
    names = [name for container in box.containers() for name in container["Names"]]
    assert not [name for name in names if "operate-moved" in name or "operate-copy" in name]


def test_checks_are_used_by_the_next_release(box: Box, app: str) -> None:
    ok(box, "checks:set", app, "web", "--content", "'no app says this'", "--attempts", "1")
    changed = box.ssh("config:set", app, "CHECKED=1")
    assert changed.status == 1, changed
    assert "no app says this" in changed.err
    assert box.get(app).status == 200
    ok(box, "checks:set", app, "web", "--content", "''", "--attempts", "''")
    ok(box, "config:set", app, "CHECKED=2")
    wrong = box.ssh("checks:set", app, "web", "--path", "health")
    assert wrong.status == 1 and "starts with /" in wrong.err


def test_one_off_commands_pass_input_output_and_status(box: Box, app: str) -> None:
    assert ok(box, "run", app, "echo", "'a  b'") == "a  b\n"
    assert ok(box, "run", app, "hello", "again") == "hello from the console again\n"
    assert ok(box, "run", app, "cat", stdin="through the pipe") == "through the pipe"
    failed = box.ssh("run", app, "sh", "-c", "'echo out; echo err >&2; exit 7'")
    assert (failed.status, failed.out, failed.err) == (7, "out\n", "err\n")
    eventually(lambda: not [c for c in box.containers() if c["Labels"].get("paasd.role") == "one-off"])


def test_one_off_commands_are_interactive_on_a_terminal(box: Box, app: str) -> None:
    command = [*box.ssh_command(), "-tt", "-p", str(box.ssh_port), "paasd@127.0.0.1", "run", app, "sh"]
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    try:
        _type(master, b"tty && echo size $(stty size | wc -w) && exit 5\n")
        seen = _read_until(master, b"size 2")
        assert b"/dev/" in seen
        assert process.wait(20) == 5
    finally:
        process.kill()
        os.close(master)


def _type(fd: int, data: bytes) -> None:
    _read_until(fd, b"$ ")
    os.write(fd, data)


def _read_until(fd: int, text: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 20
    while text not in seen and time.monotonic() < deadline:
        ready, _, _ = select.select([fd], [], [], 0.5)
        if ready:
            seen += os.read(fd, 4096)
    assert text in seen, seen
    return seen


def test_keys_open_and_close_the_door(box: Box) -> None:
    key = box.new_key("second")
    assert box.ssh("version", key=key).status == 255
    ok(box, "keys:add", "second", stdin=key.with_suffix(".pub").read_text())
    assert box.ssh("version", key=key).status == 0
    assert "second" in {k["name"] for k in box.json("keys:list")}
    ok(box, "keys:remove", "second")
    assert box.ssh("version", key=key).status == 255


def test_a_removed_key_ends_its_open_sessions(box: Box, app: str) -> None:
    key = box.new_key("third")
    ok(box, "keys:add", "third", stdin=key.with_suffix(".pub").read_text())
    command = [*box.ssh_command(key), "-p", str(box.ssh_port), "paasd@127.0.0.1", "logs", app, "-t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as session:
        try:
            _until_it_follows(box, app, session)
            ok(box, "keys:remove", "third")
            assert session.wait(20) != 0
        finally:
            session.kill()


def test_events_and_report_tell_what_happened(box: Box, app: str) -> None:
    types = {event["type"] for event in box.json("events", app, "-n", "200")}
    assert {"app.created", "deployment.requested", "build.started", "build.completed", "deployment.completed"} <= types
    report = box.json("report", app)
    assert report["app"]["name"] == app
    assert "URL:" in ok(box, "report", app)


def test_refused_sessions_are_recorded(box: Box) -> None:
    refused = box.ssh("git-upload-archive", "'operate'")
    assert refused.status == 1 and len(refused.err.strip().splitlines()) <= 2
    assert any(e["type"] == "ssh.refused" for e in box.json("events", "-n", "200"))


def test_every_command_has_help_with_examples_over_ssh(box: Box) -> None:
    for name in root.commands:
        text = ok(box, name, "--help")
        assert text.startswith(f"Usage: paasd {name}"), text
        assert "Examples:" in text, name


def test_unknown_commands_and_options_say_what_to_type(box: Box) -> None:
    unknown = box.ssh("apps:crate", "x")
    assert unknown.status == 1 and "no such command" in unknown.err
    wrong = box.ssh("apps:list", "--jsno")
    assert wrong.status == 2 and "--json" in wrong.err
    missing = box.ssh("apps:info")
    assert missing.status == 2 and "APP" in missing.err
    for local_only in set(program().commands) - set(root.commands):
        assert "no such command" in box.ssh(local_only).err


def test_the_same_commands_work_on_the_box(box: Box, app: str) -> None:
    done = box.local("apps:list", "--json")
    assert done.status == 0
    assert app in {found["name"] for found in json.loads(done.out)}
    assert box.local("version").out.startswith("paasd ")
    assert box.local("run", app, "echo", "from the box").out == "from the box\n"


def test_completion_offers_commands_and_apps(box: Box, app: str) -> None:
    script = box.local("completion", "bash")
    assert script.status == 0 and "complete -o nosort" in script.out
    completions = _completed(box, "paasd ps:re", 1)
    assert {"ps:report", "ps:restart"} <= completions
    assert app in _completed(box, "paasd ps:report op", 2)


def _completed(box: Box, words: str, position: int) -> set[str]:
    environment = {
        **os.environ,
        "PAASD_DATA_DIR": str(box.data),
        "_PAASD_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    command = [sys.executable, "-m", "paasd"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_without_a_daemon_commands_say_how_to_start_it(new_box: type[Box]) -> None:
    done = new_box().local("apps:list")
    assert done.status == 1
    assert "not running" in done.err and "paasd serve" in done.err


def test_a_stopped_app_keeps_its_changes_until_it_is_started_or_pushed(
    box: Box, app: str, repository: Repository
) -> None:
    ok(box, "ps:stop", app)
    printed = ok(box, "config:set", app, "WORD=while-stopped")
    assert f"ps:start {app}" in printed
    assert box.get(app).status == 503
    assert box.json("ps:report", app)["instances"] == []
    repository.commit({"note.txt": "a push starts it"})
    assert box.push(repository, app, "main", "-f").status == 0
    assert box.get(app).text.startswith("while-stopped ")
    assert box.json("apps:info", app)["stopped"] is False
