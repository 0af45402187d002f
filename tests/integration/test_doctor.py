"""`paasd doctor`, `doctor --state`, `stop` and `purge` on a real box, healthy and broken on purpose."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paasd.doctor import Finding, Level
from paasd.doctor.engine import floors
from paasd.doctor.host import clock
from tests.apps import app
from tests.box import Box, docker, eventually, labelled
from tests.ports import free_port
from tests.reconciler import look_now

pytestmark = pytest.mark.engine

Boxes = Callable[..., Box]


@pytest.fixture(scope="module")
def sick() -> Iterator[Box]:
    """A box that tests may damage: the daemon is down, Nginx may run."""
    box = Box().start()
    box.stop()
    yield box
    box.close()


def findings(box: Box, *options: str) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in json.loads(box.local("doctor", "--json", *options).out)}


def level(box: Box, check: str) -> str:
    return str(findings(box)[check]["level"])


def test_a_healthy_box(box: Box) -> None:
    done = box.local("doctor")
    assert done.status == 0, done.all
    found = findings(box)
    wanted = {
        "daemon",
        "engine",
        "storage",
        "limits",
        "Docker",
        "runc",
        "base image",
        "nginx",
        "http port",
        "https port",
    }
    wanted |= {
        "ssh port",
        "git",
        "mmdebstrap",
        "ssh",
        "python",
        "clock",
        "disk",
        "permissions",
        "owner",
        "master key",
        "firewall",
    }
    assert wanted <= found.keys()
    assert str(box.http_port) in found["http port"]["text"], "not the ports that the daemon was started with"
    assert all(finding["mend"] for finding in found.values() if finding["level"] != "OK")
    assert all(finding["check"] in done.out for finding in found.values())


def test_it_writes_nothing_into_the_data_directory(sick: Box) -> None:
    def listing() -> set[tuple[str, float]]:
        return {(str(path), path.stat().st_mtime) for path in sick.data.rglob("*") if path.name != "state.db-shm"}

    before = listing()
    sick.local("doctor")
    assert listing() == before


def test_it_works_with_the_daemon_down(sick: Box) -> None:
    found = findings(sick)
    assert (found["daemon"]["level"], found["http port"]["level"]) == ("WARN", "OK")
    assert found["ssh port"]["text"] == f"{sick.ssh_port} is free"


def test_a_silent_engine_is_a_failure(new_box: Boxes) -> None:
    box = new_box('docker_host = "unix:///nonexistent/docker.sock"\n')
    done = box.local("doctor", "--config", str(box.root / "paasd.toml"), "--json")
    found = {finding["check"]: finding for finding in json.loads(done.out)}
    assert (done.status, found["engine"]["level"]) == (1, "FAIL")
    assert "docker" in found["engine"]["mend"]


def test_a_port_in_other_hands_names_its_holder(new_box: Boxes) -> None:
    with socket.create_server(("0.0.0.0", 0)) as stranger:
        port = stranger.getsockname()[1]
        box = new_box(f"[http]\nport = {port}\n[ssh]\nport = {free_port()}\n")
        done = box.local("doctor", "--config", str(box.root / "paasd.toml"), "--json")
    found = {finding["check"]: finding for finding in json.loads(done.out)}
    assert found["http port"]["level"] == "FAIL"
    assert f"(pid {os.getpid()})" in found["http port"]["text"]
    assert found["ssh port"]["level"] == "OK"


def test_open_and_foreign_files_are_failures(sick: Box) -> None:
    key = sick.data / "keys" / "master.key"
    key.chmod(0o640)
    try:
        assert str(key) in findings(sick)["permissions"]["text"]
        assert level(sick, "permissions") == "FAIL"
    finally:
        key.chmod(0o600)
    assert level(sick, "permissions") == "OK"
    os.chown(sick.data / "state.db", 1, 1)
    try:
        assert level(sick, "owner") == "FAIL"
    finally:
        os.chown(sick.data / "state.db", 0, 0)
    assert level(sick, "owner") == "OK"


def test_a_missing_master_key_is_a_failure(sick: Box) -> None:
    key = sick.data / "keys" / "master.key"
    key.rename(key.with_suffix(".away"))
    try:
        assert level(sick, "master key") == "FAIL"
    finally:
        key.with_suffix(".away").rename(key)
    assert level(sick, "master key") == "OK"


def test_a_site_that_nginx_refuses_is_a_failure(sick: Box) -> None:
    site = sick.data / "edge" / "sites" / "bad.conf"
    site.write_text("server { nonsense; }\n")
    try:
        found = findings(sick)["nginx"]
        assert found["level"] == "FAIL"
        assert "nonsense" in found["text"]
    finally:
        site.unlink()
    assert level(sick, "nginx") == "OK"


def test_too_little_disk_and_too_long_a_path(new_box: Boxes) -> None:
    box = new_box(f"[keep]\nfree_bytes = {2**62}\n")
    long = box.root / ("x" * 100)
    done = box.local("doctor", "--config", str(box.root / "paasd.toml"), "--data-dir", str(long), "--json")
    found = {finding["check"]: finding["level"] for finding in json.loads(done.out)}
    assert (found["disk"], found["engine disk"], found["socket path"]) == ("FAIL", "FAIL", "FAIL")


def test_a_clock_that_was_set_back_is_a_failure(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE events (at REAL)")
        connection.execute("INSERT INTO events VALUES (?)", (time.time(),))
        connection.commit()
        assert clock(database).level is Level.OK
        connection.execute("INSERT INTO events VALUES (?)", (time.time() + 86400,))
        connection.commit()
    connection.close()
    assert clock(database).level is Level.FAIL


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.1.5+ds1", "WARN"), ("1.1.12", "WARN"), ("1.2.8", "OK"), ("1.4.0-rc.1", "OK"), ("", "WARN")],
)
def test_known_vulnerable_versions_are_warnings(version: str, expected: str) -> None:
    (found,) = floors({"runc": version})
    assert isinstance(found, Finding)
    assert found.level == expected


def test_state_agrees_and_sees_what_somebody_changed(box: Box) -> None:
    name = f"state{secrets.token_hex(3)}"
    assert box.push(box.repository(app()), name).status == 0
    eventually(lambda: box.local("doctor", "--state").status == 0, 60)
    quarantine = box.data / "repositories" / f"{repository_of(box, name)}.git" / "objects" / "tmp_objdir-incoming-x"
    lock = quarantine.parent.parent / "HEAD.lock"
    try:
        quarantine.mkdir()
        lock.write_text("")
        done = box.local("doctor", "--state")
        assert done.status == 1
        assert str(quarantine) in done.out
        assert str(lock) in done.out
    finally:
        quarantine.rmdir()
        lock.unlink()
    box.ssh("apps:destroy", name, "--force")


def test_state_sees_strangers_until_they_are_removed(box: Box) -> None:
    """A pass of the reconciler may be faster than the look: then they are put there again."""
    site = box.data / "edge" / "sites" / "stranger.conf"
    half_written = box.data / "edge" / "sites" / ".x.conf.new"
    network = {"Name": f"{box.label}-x", "Labels": {"paasd.instance": box.label}, "CheckDuplicate": True}

    def seen() -> bool:
        site.write_text("")
        half_written.write_text("")
        docker("POST", "/networks/create", network)
        found = "\n".join(box.differences())
        return all(word in found for word in ("server block of stranger", str(half_written), f"network {box.label}-x"))

    eventually(seen, 30)
    look_now(box)
    box.settles(60)
    assert not site.exists()


def repository_of(box: Box, name: str) -> str:
    with sqlite3.connect(f"file:{box.data / 'state.db'}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT id FROM apps WHERE name = ?", (name,)).fetchone()
    connection.close()
    return str(found[0])


def test_state_without_a_daemon_says_so(sick: Box) -> None:
    done = sick.local("doctor", "--state")
    assert done.status == 1
    assert "not running" in done.err


def test_a_second_daemon_on_the_same_data_is_refused(new_box: Boxes) -> None:
    box = new_box().start()
    first, pid = box.process, box.process.pid if box.process else 0
    try:
        with pytest.raises(AssertionError, match="did not start") as refused:
            box.ssh_port, kept = free_port(), box.ssh_port
            box.start()
        assert f"another paasd (pid {pid})" in str(refused.value)
    finally:
        box.process, box.ssh_port = first, kept
    assert box.ssh("apps:list").status == 0, "the first daemon suffered"


def test_stop_ends_the_daemon_and_leaves_the_apps(new_box: Boxes) -> None:
    box = new_box().start()
    assert box.push(box.repository(app(body="still here")), "hello").status == 0
    done = box.local("stop")
    assert (done.status, box.process.wait(20) if box.process else None) == (0, 0), done.all
    assert box.get("hello").text == "still here"
    assert "was not running" in box.local("stop").out
    assert box.local("stop", "--all").status == 0
    with pytest.raises(OSError):
        box.get("hello")
    assert [c["State"] for c in box.containers()] == ["running"]
    assert box.local("stop", "--apps").status == 0
    assert [c["State"] for c in box.containers()] == ["exited"]
    box.start()
    assert eventually(lambda: box.get("hello").text == "still here", 60)


def test_purge_leaves_nothing(new_box: Boxes) -> None:
    box = new_box().start()
    assert box.push(box.repository(app()), "hello").status == 0
    refused = box.local("purge", stdin="no\n")
    assert refused.status == 1
    assert box.get("hello").status == 200
    done = box.local("purge", "--force")
    assert done.status == 0, done.all
    assert not box.data.exists()
    assert [labelled(kind, box.label) for kind in ("containers", "networks", "images")] == [[], [], []]
    assert box.local("purge", "--force").status == 0, "not twice"
