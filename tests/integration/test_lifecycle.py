"""Apps are made, renamed and destroyed while other things happen to them, and while parts of the box are away."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.apps import app, slow_build
from tests.box import Box, docker, eventually, labelled
from tests.prober import Prober

pytestmark = pytest.mark.engine

_SETTINGS = "[run]\ndrain = 1.0\nstop_timeout = 2\n"


@pytest.fixture
def clean(box: Box) -> Iterator[Box]:
    """The shared box, in which database, engine and files must agree again after the test."""
    yield box
    box.settles(30)


def projects(box: Box) -> set[str]:
    with closing(sqlite3.connect(box.data / "state.db")) as database:
        return {name for (name,) in database.execute("SELECT name FROM projects")}


def begin(box: Box, *words: str) -> subprocess.Popen[str]:
    """A command over SSH that goes on in the background."""
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", *words]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    text, _ = process.communicate(timeout=60)
    return process.returncode, text


@contextmanager
def without_nginx(box: Box) -> Iterator[None]:
    """Nginx is killed, and somebody else has its port."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        master = int((box.data / "edge" / "nginx.pid").read_text())
        workers = subprocess.run(["pgrep", "-P", str(master)], capture_output=True, text=True, check=True).stdout
        subprocess.run(["kill", "-9", str(master), *workers.split()], check=True)

        def taken() -> bool:
            try:
                squatter.bind(("0.0.0.0", box.http_port))
            except OSError:
                return False
            return True

        eventually(taken, 10)
        squatter.listen()
        yield


class Door:
    """A socket before the engine's own, which can be shut."""

    def __init__(self, path: Path) -> None:
        self._open: list[socket.socket] = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
        self._open[0].bind(str(path))
        self._open[0].listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._open[0].accept()
                far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                far.connect("/var/run/docker.sock")
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_an_engine_that_is_away_refuses_before_anything_is_lost(new_box: Callable[..., Box], tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    box = new_box(f'docker_host = "unix://{path}"\n{_SETTINGS}')
    door = Door(path)
    try:
        box.start()
        assert box.push(box.repository(app()), "safe").status == 0
        door.shut()
        path.unlink()
        done = box.ssh("apps:destroy", "safe", "--force")
        assert done.status == 1 and "engine" in done.err, done
        assert [found["name"] for found in box.json("apps:list")] == ["safe"]
        assert box.get("safe").status == 200 and box.ssh("domains:list", "safe").status == 0
        door = Door(path)
        box.settles(45)
        assert box.ssh("apps:destroy", "safe", "--force").status == 0
        assert box.containers() == []
    finally:
        door.shut()


def test_destroying_ends_what_runs_in_the_app(clean: Box) -> None:
    box = clean
    assert box.push(box.repository(app()), "ended").status == 0
    networks = len(labelled("networks", box.label))
    one_off = begin(box, "run", "ended", "sleep", "300")
    eventually(lambda: any(c["Labels"]["paasd.role"] == "one-off" for c in box.containers()))
    push = box.begin_push(box.repository(slow_build(60)), "ended", "+main")
    eventually(lambda: box.json("builds", "ended")[0]["status"] == "running")
    assert box.ssh("apps:destroy", "ended", "--force").status == 0
    assert outcome(one_off)[0] != 0
    status, text = outcome(push)
    assert status != 0 and "ended was destroyed" in text
    assert len(labelled("networks", box.label)) == networks - 1
    assert not [c for c in box.containers() if c["Labels"]["paasd.app-name"] == "ended"]
    assert not [i for i in labelled("images", box.label) if any("/ended-" in tag for tag in i["RepoTags"] or [])]
    assert "ended" not in projects(box)


def test_destroying_leaves_the_other_apps_of_the_project_alone(clean: Box) -> None:
    box = clean
    for name in ("left-one", "left-two"):
        assert box.ssh("apps:create", name, "--project", "left").status == 0
        assert box.push(box.repository(app(body=name)), name).status == 0
    with Prober(box, "left-two") as prober:
        assert box.ssh("apps:destroy", "left-one", "--force").status == 0
    # Taking a site away is a reload, which ends connections that are kept for further requests.
    assert [failure for failure in prober.failures if not failure.startswith("kept")] == []
    assert set(prober.pages) == {"left-two"}
    assert "left" in projects(box)
    assert box.ssh("apps:destroy", "left-two", "--force").status == 0
    assert "left" not in projects(box)


def test_destroying_without_nginx_leaves_only_what_nginx_had(new_box: Callable[..., Box]) -> None:
    box = new_box(_SETTINGS).start()
    assert box.push(box.repository(app()), "dark").status == 0
    with without_nginx(box):
        done = box.ssh("apps:destroy", "dark", "--force")
        assert done.status == 0, done
        assert box.containers() == [] and labelled("networks", box.label) == []
        assert labelled("images", box.label) == []
        assert not list((box.data / "repositories").glob("*.git"))
        assert not list((box.data / "logs" / "builds").iterdir())
        assert projects(box) == set()
    box.settles()
    assert box.get("dark").status == 404


def test_an_app_that_cannot_be_made_says_why_and_leaves_nothing(new_box: Callable[..., Box]) -> None:
    box = new_box(_SETTINGS).start()
    assert box.ssh("apps:create", "first").status == 0
    with without_nginx(box):
        for words in (("apps:create", "second"), ("apps:clone", "first", "second")):
            done = box.ssh(*words)
            assert done.status == 1 and "Nginx" in done.err, done
            assert [found["name"] for found in box.json("apps:list")] == ["first"]
            assert projects(box) == {"first"}
            assert len(list((box.data / "repositories").glob("*.git"))) == 1
    box.settles()
    assert box.ssh("apps:create", "second").status == 0


def test_a_clone_that_does_not_start_says_why_and_leaves_nothing(clean: Box) -> None:
    box = clean
    main = "sys.exit(3) if os.environ['PAASD_APP'] == 'twin-two' else serve()"
    assert box.push(box.repository(app(main)), "twin").status == 0
    done = box.ssh("apps:clone", "twin", "twin-two")
    assert done.status == 1 and "3" in done.err, done
    assert "twin-two" not in {found["name"] for found in box.json("apps:list")} | projects(box)
    assert not [c for c in box.containers() if c["Labels"]["paasd.app-name"] == "twin-two"]
    assert box.get("twin").status == 200 and box.get("twin-two").status == 404


def test_renaming_while_a_release_goes_live_waits_for_it(new_box: Callable[..., Box]) -> None:
    box = new_box(_SETTINGS).start(failpoint="after-route:sleep=2")
    repository = box.repository(app(body="old"))
    assert box.push(repository, "before").status == 0
    repository.commit(app(body="new"))
    push = box.begin_push(repository, "before")
    eventually(lambda: box.json("deployments", "before")[0]["phase"] == "switching")
    done = box.ssh("apps:rename", "before", "after")
    assert done.status == 0, done
    assert "Waiting for the release of before that is going live" in done.out
    assert outcome(push)[0] == 0
    assert box.get("after").text == "new"
    assert box.get("before").status == 404
    assert box.json("deployments", "after")[0]["status"] == "succeeded"
    box.settles()


def test_renaming_while_a_build_runs_keeps_its_image_and_its_release(new_box: Callable[..., Box]) -> None:
    box = new_box(_SETTINGS).start(failpoint="build-finished:sleep=4")
    push = box.begin_push(box.repository(app(body="renamed")), "before")
    eventually(lambda: any(a["name"] == "before" for a in box.json("apps:list")) and box.json("builds", "before"))
    eventually(lambda: box.json("builds", "before")[0]["status"] == "succeeded")
    assert box.ssh("apps:rename", "before", "after").status == 0
    assert box.api("POST", "/cleanup")["removed_images"] == []
    status, text = outcome(push)
    assert status == 0 and "after v1 is live" in text, text
    assert box.get("after").text == "renamed" and box.get("before").status == 404
    assert box.api("POST", "/cleanup")["removed_images"] == []
    box.settles()


@contextmanager
def hosts_cannot_change(box: Box) -> Iterator[None]:
    """The edge's table of host names cannot be written; routes can."""
    obstacle = box.data / "edge" / ".hosts.txt.new"
    obstacle.mkdir()
    try:
        yield
    finally:
        obstacle.rmdir()


def test_a_renaming_that_the_edge_does_not_take_leaves_the_app_as_it_was(clean: Box) -> None:
    box = clean
    assert box.push(box.repository(app(body="kept")), "stays").status == 0
    with Prober(box, "stays") as prober, hosts_cannot_change(box):
        done = box.ssh("apps:rename", "stays", "moved")
        assert done.status == 1, done
        assert box.json("apps:info", "stays")["release"] == "v1"
        assert box.ssh("apps:info", "moved").status == 1
    prober.assert_unbroken()
    assert box.get("moved").status == 404
    assert box.ssh("apps:rename", "stays", "moved").status == 0
    assert box.get("moved").text == "kept" and box.get("stays").status == 404


def test_a_renaming_that_a_killed_daemon_left_half_done_has_no_gap(clean: Box) -> None:
    """The row has the new name, and the edge does not take it for a while: the old one serves until it does."""
    box = clean
    assert box.push(box.repository(app(body="kept")), "before").status == 0
    logged = box.log().count("reconciling (sites)")
    with Prober(box, "before") as prober:
        with hosts_cannot_change(box):
            with closing(sqlite3.connect(box.data / "state.db")) as database, database:
                database.execute("UPDATE apps SET name = 'after' WHERE name = 'before'")
            eventually(lambda: box.log().count("reconciling (sites)") > logged, 60)
            assert box.get("before").text == "kept"
        eventually(lambda: box.get("after").text == "kept", 60)
    assert {failure[:3] for failure in prober.failures} <= {"404"}, prober.failures[:3]
    eventually(lambda: box.get("before").status == 404)


def test_a_new_app_may_have_the_name_of_one_that_is_being_destroyed(new_box: Callable[..., Box]) -> None:
    box = new_box(_SETTINGS).start(failpoint="app-row-removed:sleep=2")
    assert box.push(box.repository(app(body="old")), "again").status == 0
    destroying = begin(box, "apps:destroy", "again", "--force")
    eventually(lambda: box.json("apps:list") == [])
    assert box.push(box.repository(app(body="new")), "again").status == 0
    assert outcome(destroying)[0] == 0
    assert box.get("again").text == "new"
    box.settles()
    assert len(box.containers()) == 1


def test_one_broken_app_is_not_everybodys_trouble(new_box: Callable[..., Box]) -> None:
    """A release that cannot be decrypted has no route; the routes of the others are put right all the same."""
    box = new_box(_SETTINGS).start()
    for name in ("broken", "whole"):
        assert box.push(box.repository(app(body=name)), name).status == 0
    box.kill()
    spoil_releases(box, "broken")
    (box.data / "edge" / "routes.txt").write_text("")
    box.kill_nginx()
    box.start()
    eventually(lambda: box.get("whole").text == "whole")
    assert box.get("broken").status != 200
    (trouble,) = box.differences()
    assert "what the route of broken should be cannot be told" in trouble
    assert box.log().count("reconciling (route of broken)") == 1


def spoil_releases(box: Box, name: str) -> None:
    with closing(sqlite3.connect(box.data / "state.db")) as database, database:
        ((trigger,),) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'releases_are_immutable'")
        database.execute("DROP TRIGGER releases_are_immutable")
        where = "app_id IN (SELECT id FROM apps WHERE name = ?)"
        database.execute(f"UPDATE releases SET config = zeroblob(64) WHERE {where}", (name,))  # noqa: S608
        database.execute(trigger)


def test_a_one_off_of_no_app_is_ended(clean: Box) -> None:
    labels = {"paasd.instance": clean.label, "paasd.role": "one-off", "paasd.app": "nobody"}
    options = {"Image": "paasd/python:3.13", "Cmd": ["sleep", "300"], "Entrypoint": [], "Labels": labels}
    stray = f"{clean.label}-stray"

    def is_told_of() -> bool:
        """Made again, when it was ended before somebody looked."""
        docker("POST", f"/containers/create?name={stray}", options)
        docker("POST", f"/containers/{stray}/start")
        return f"one-off {stray} belongs to no app" in clean.differences()

    eventually(is_told_of)
    clean.settles(45)


def heard_by_all(box: Box) -> int:
    with closing(sqlite3.connect(box.data / "state.db")) as database:
        return int(database.execute("SELECT min(after_event) FROM subscriptions").fetchone()[0])


def test_what_is_older_than_the_settings_say_is_forgotten(new_box: Callable[..., Box]) -> None:
    box = new_box(f"{_SETTINGS}[keep]\nevents = 7\ndeployments = 3\nreleases = 2\n").start()
    assert box.push(box.repository(app(body="kept")), "kept").status == 0
    for number in range(4):
        assert box.ssh("config:set", "kept", f"N={number}").status == 0
    [forget] = [job["id"] for job in box.json("jobs") if job["type"] == "housekeeping.forget"]
    # Subscribers have heard of everything: what they have still to get is spared.
    newest = max(e["id"] for e in box.json("events", "-n", "200") if e["type"] == "deployment.completed")
    eventually(lambda: heard_by_all(box) >= newest)
    assert box.ssh("jobs:retry", str(forget)).status == 0
    eventually(lambda: len(box.json("events", "-n", "200")) == 7)
    assert box.json("events", "-n", "200")[-1]["type"] == "job.retried"
    eventually(lambda: [d["number"] for d in box.json("deployments", "kept")] == [5, 4, 3])
    assert box.get("kept").text == "kept"
    assert box.ssh("rollback", "kept").status == 0
    assert box.json("apps:info", "kept")["release"] == "v6"
    box.settles()
