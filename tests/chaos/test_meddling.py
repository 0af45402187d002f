"""Somebody meddles behind paasd's back: all is repaired without a human."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.apps import app
from tests.box import Box, docker, eventually
from tests.prober import Prober
from tests.reconciler import look_now

pytestmark = [pytest.mark.engine, pytest.mark.slow]

REPAIRED = 45
"""Seconds: the timer of the reconciler is 15, and nothing needs two rounds."""


@pytest.fixture(scope="module")
def meddled() -> Iterator[Box]:
    box = Box("[run]\ndrain = 1.0\nstop_timeout = 2\n").start()
    try:
        for name in ("one", "two"):
            assert box.push(box.repository(app(body=name)), name).status == 0
        yield box
    finally:
        box.close()


def container(box: Box, name: str) -> str:
    return str(next(i["name"] for i in box.json("ps:report", name)["instances"] if i["duty"] == "live"))


def page(box: Box, name: str) -> str:
    """What a visitor sees; nothing while Nginx is down."""
    try:
        return box.get(name).text
    except (OSError, http.client.HTTPException):
        return ""


def assert_repaired(box: Box) -> None:
    eventually(lambda: all(page(box, name) == name for name in ("one", "two")), REPAIRED)
    box.settles(REPAIRED)
    eventually(lambda: len(box.containers()) == 2, REPAIRED)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "?force=1"),
        ("POST", "/stop?t=0"),
        ("POST", "/kill"),
        ("POST", "/restart?t=0"),
        ("POST", "/kill?signal=TERM"),
    ],
    ids=["removed", "stopped", "killed", "restarted", "terminated"],
)
def test_container(meddled: Box, method: str, path: str) -> None:
    with Prober(meddled, "two") as other:
        docker(method, f"/containers/{container(meddled, 'one')}{path}")
        assert_repaired(meddled)
    other.assert_unbroken()


def test_container_taken_off_its_network(meddled: Box) -> None:
    name = container(meddled, "one")

    def networks() -> list[str]:
        found = docker("GET", f"/containers/{name}/json")
        return list(found["NetworkSettings"]["Networks"]) if "Id" in found else []

    (network,) = networks()
    docker("POST", f"/networks/{network}/disconnect", {"Container": name, "Force": True})
    # Nothing tells of it, so that this is the timer's; and a pass may come before anybody sees that it is gone.
    eventually(lambda: networks() == [network], REPAIRED)
    assert_repaired(meddled)


def test_whole_network_removed(meddled: Box) -> None:
    name = container(meddled, "one")
    network = next(iter(docker("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]))
    docker("DELETE", f"/containers/{name}?force=1")
    docker("DELETE", f"/networks/{network}")
    assert_repaired(meddled)


def test_stranger_with_our_label_is_removed_and_others_are_left(meddled: Box) -> None:
    labels = {"paasd.instance": meddled.label, "paasd.role": "instance"}
    options = {"Image": "paasd/python:3.13", "Cmd": ["sleep", "300"], "Entrypoint": [], "HostConfig": {"Init": True}}
    ours = docker("POST", f"/containers/create?name={meddled.label}-stray", {**options, "Labels": labels})["Id"]
    foreign = docker("POST", f"/containers/create?name={meddled.label}-foreign", options)["Id"]
    try:
        docker("POST", f"/containers/{ours}/start")
        docker("POST", f"/containers/{foreign}/start")
        assert_repaired(meddled)
        assert docker("GET", f"/containers/{foreign}/json")["State"]["Running"]
    finally:
        docker("DELETE", f"/containers/{foreign}?force=1")


def nginx(box: Box) -> psutil.Process:
    """The running master."""

    def found() -> psutil.Process | None:
        try:
            return psutil.Process(int((box.data / "edge" / "nginx.pid").read_text()))
        except (OSError, ValueError, psutil.Error):
            return None

    process: psutil.Process = eventually(found, REPAIRED)
    return process


def test_nginx_master_killed(meddled: Box) -> None:
    """Its workers go on; a new master takes over."""
    before = nginx(meddled)
    before.kill()
    eventually(lambda: nginx(meddled).pid != before.pid and nginx(meddled).is_running(), REPAIRED)
    assert_repaired(meddled)


def test_all_of_nginx_killed(meddled: Box) -> None:
    master = nginx(meddled)
    family = [master, *master.children()]
    for process in family:
        process.kill()
    started = time.monotonic()
    assert_repaired(meddled)
    assert time.monotonic() - started < 10
    counted = {p.pid for p in psutil.process_iter() if _belongs(p, meddled.data)}
    assert nginx(meddled).pid in counted and not counted & {p.pid for p in family}


def _belongs(process: psutil.Process, data: Path) -> bool:
    try:
        return process.name() == "nginx" and any(str(data) in word for word in process.cmdline())
    except psutil.Error:
        return False


def test_nginx_stopped_kindly(meddled: Box) -> None:
    master = nginx(meddled)
    master.send_signal(signal.SIGQUIT)
    master.wait(10)
    assert_repaired(meddled)


def test_sites_edited_removed_and_added_by_hand(meddled: Box) -> None:
    assert meddled.ssh("apps:create", "three").status == 0
    for name in ("one", "two", "three"):
        assert meddled.ssh("edge:set", name, "body-size", "50m").status == 0
    sites = meddled.data / "edge" / "sites"
    good = {path.name: path.read_text() for path in sites.glob("*.conf")}
    assert len(good) == 3
    (sites / "one.conf").write_text("this is not { nginx")
    (sites / "two.conf").write_text(good["two.conf"].replace("two.localhost", "stolen.localhost"))
    (sites / "three.conf").unlink()
    (sites / "stray.conf").write_text("server { listen 1.2.3.4:99999; }")
    look_now(meddled)
    eventually(lambda: {path.name: path.read_text() for path in sites.glob("*.conf")} == good, REPAIRED)
    assert_repaired(meddled)
    assert meddled.get("two", host="stolen.localhost").status in (404, 421)
    assert meddled.ssh("apps:destroy", "three", "--force").status == 0
    for name in ("one", "two"):
        assert meddled.ssh("edge:set", name, "body-size").status == 0


def test_a_broken_site_keeps_no_other_app_from_its_deployment(meddled: Box) -> None:
    """Whoever reloads meanwhile, as with a server block of its own, gets its own block, and no app its neighbour's."""
    assert meddled.ssh("edge:set", "one", "body-size", "50m").status == 0
    site = meddled.data / "edge" / "sites" / "one.conf"
    good = site.read_text()
    site.write_text(good + "\nserver {{{")
    assert meddled.push(meddled.repository(app(body="two")), "two", "+main").status == 0
    assert meddled.ssh("edge:set", "two", "body-size", "60m").status == 0
    assert page(meddled, "one") == "one" and page(meddled, "two") == "two"
    eventually(lambda: site.read_text() == good, REPAIRED)
    assert "client_max_body_size 60m" in meddled.ssh("nginx:show-config", "two").out
    for name in ("one", "two"):
        assert meddled.ssh("edge:set", name, "body-size").status == 0
    assert_repaired(meddled)


def test_an_app_without_a_container_harms_no_reload(meddled: Box) -> None:
    """Its visitors are told so; Nginx takes its new configuration, and others are served."""
    assert meddled.ssh("ps:stop", "one").status == 0
    master = int((meddled.data / "edge" / "nginx.pid").read_text())
    os.kill(master, signal.SIGHUP)
    assert meddled.ssh("edge:set", "two", "body-size", "60m").status == 0
    answer = meddled.get("one")
    assert answer.status == 503 and "Retry-After" in answer.headers
    assert page(meddled, "two") == "two"
    docker("POST", f"/containers/{container(meddled, 'two')}/kill")
    os.kill(master, signal.SIGHUP)
    assert meddled.ssh("ps:start", "one").status == 0
    eventually(lambda: page(meddled, "one") == "one")
    assert meddled.ssh("edge:set", "two", "body-size").status == 0
    assert_repaired(meddled)


def test_tables_lost_with_nginx(meddled: Box) -> None:
    """Both the memory and its mirrors are gone: the database knows."""
    for name in ("hosts", "routes", "policies"):
        (meddled.data / "edge" / f"{name}.txt").write_text("")
    meddled.kill_nginx()
    for process in nginx_workers(meddled):
        process.kill()
    started = time.monotonic()
    assert_repaired(meddled)
    assert time.monotonic() - started < 10


def nginx_workers(box: Box) -> list[psutil.Process]:
    log = str(box.data / "edge" / "logs" / "error.log")
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "nginx" and any(file.path == log for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_repository_lock_left_behind_does_not_outlive_a_restart(meddled: Box) -> None:
    for path in (meddled.data / "repositories").glob("*.git"):
        (path / "refs" / "heads" / "main.lock").touch()
        os.makedirs(path / "objects" / "tmp_objdir-incoming-x1y2z3")
    assert meddled.stop() == 0
    meddled.start()
    assert_repaired(meddled)
    repository = meddled.repository(app(body="one"))
    assert meddled.push(repository, "one", "+main").status == 0


@contextlib.contextmanager
def irremovable(name: str) -> Iterator[None]:
    """The engine can end this container and not delete its file system."""
    pinned = Path(docker("GET", f"/containers/{name}/json")["GraphDriver"]["Data"]["UpperDir"], "pinned")
    pinned.touch()
    subprocess.run(["chattr", "+i", str(pinned)], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(pinned)], check=True, timeout=10)


def test_a_live_container_that_the_engine_cannot_delete_is_replaced(meddled: Box) -> None:
    name = container(meddled, "one")
    with irremovable(name):
        docker("DELETE", f"/containers/{name}?force=1")
        eventually(lambda: page(meddled, "one") == "one", REPAIRED)
        assert container(meddled, "one") == name

        def is_told_of() -> bool:
            """And of nothing else: the instance itself runs again."""
            told = meddled.differences()
            return len(told) == 1 and told[0].startswith(f"container {name}-dead-") and "not wanted" in told[0]

        eventually(is_told_of, REPAIRED)
    assert_repaired(meddled)


def test_an_old_container_that_the_engine_cannot_delete_is_tried_again(meddled: Box) -> None:
    name = container(meddled, "two")
    with irremovable(name):
        assert meddled.ssh("ps:restart", "two").status == 0
        assert page(meddled, "two") == "two"
        eventually(lambda: f"instance {name} is EXITED".lower() in [each.lower() for each in meddled.differences()])
    look_now(meddled)
    assert_repaired(meddled)
