"""A nearly full disk, and clean-up: apps go on, nothing that is not paasd's is touched, rollbacks stay possible."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.apps import app
from tests.box import Box, docker, eventually, labelled
from tests.engine import Engine, running_engine
from tests.images import TEST_IMAGE
from tests.prober import Prober

pytestmark = pytest.mark.engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A build that finds the disk full takes the whole build cache away: not that of the machine's engine, since others
    would wait for that and have to build all anew."""
    with running_engine() as engine:
        yield engine


def page(text: str) -> dict[str, str]:
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "index.html": text}
    return {**files, "Procfile": "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n"}


def tags(label: str) -> set[str]:
    """Of images that this paasd made or that no paasd did: another may remove its own at any time."""
    owners = (None, label)
    images = [
        found for found in docker("GET", "/images/json") if (found["Labels"] or {}).get("paasd.instance") in owners
    ]
    return {tag for found in images for tag in found["RepoTags"] or []}


def test_builds_are_refused_with_the_numbers_and_running_apps_go_on(
    engine: Engine, new_box: Callable[..., Box]
) -> None:
    settings = f'docker_host = "unix://{engine.socket}"\n[run]\nfirewall = false\nsubnet_pool = "{engine.pool}"\n'
    box = new_box(settings).start()
    repository = box.repository(page("before"))
    assert box.push(repository, "tight").status == 0
    assert box.stop() == 0
    (box.root / "paasd.toml").write_text(f"{settings}[keep]\nfree_bytes = {2**60}\n")
    box.start()
    repository.commit(page("after"))
    with Prober(box, "tight") as prober:
        done = box.push(repository, "tight")
        assert box.ssh("ps:restart", "tight").status == 0
        assert box.ssh("config:set", "tight", "A=1").status == 0
    prober.assert_unbroken()
    assert done.status != 0
    free = shutil.disk_usage(box.data).free / 2**30
    assert f"a build needs {2**30:.1f} GiB" in done.all and "GiB are free on the disk of" in done.all
    told = float(done.all.split("only ")[1].split(" GiB")[0])
    assert abs(told - free) < 5
    assert "cleanup" in done.all
    assert box.ssh("cleanup").status == 0
    assert box.get("tight").text == "before"
    box.settles()


def test_cleanup_touches_only_own_images_and_keeps_rollback_targets(new_box: Callable[..., Box]) -> None:
    box = new_box("[keep]\nreleases = 2\n[run]\ndrain = 1.0\nstop_timeout = 2\n").start()
    repository = box.repository(app(body="page 1"))
    assert box.push(repository, "kept").status == 0
    foreign = f"{box.label}-foreign/image"
    image = docker("GET", "/images/paasd/python:3.13/json")["Id"]
    docker("POST", f"/images/{image}/tag?repo={foreign}&tag=1")
    options = {"Image": f"{foreign}:1", "Cmd": ["true"]}
    stopped = docker("POST", f"/containers/create?name={box.label}-foreign", options)["Id"]
    try:
        for number in (2, 3, 4):
            repository.commit(app(body=f"page {number}"))
            assert box.push(repository, "kept").status == 0
        eventually(lambda: len(box.containers()) == 1)
        before = tags(box.label)
        assert box.ssh("cleanup").status == 0
        after = tags(box.label)
        assert all(tag.startswith(f"{box.label}/") for tag in before - after), before - after
        assert f"{foreign}:1" in after and "paasd/python:3.13" in after
        assert docker("GET", f"/containers/{stopped}/json")["Id"] == stopped
        kept = {r["image"] for r in box.json("releases", "kept")[:2]}
        assert kept <= after
        rolled = box.ssh("rollback", "kept")
        assert rolled.status == 0, rolled
        assert box.get("kept").text == "page 3"
        gone = box.ssh("rollback", "kept", "v1")
        assert gone.status == 1 and "the image of v1 is gone" in gone.err and "keep.releases" in gone.err
        assert box.get("kept").text == "page 3"
    finally:
        docker("DELETE", f"/containers/{stopped}?force=1")
        docker("DELETE", f"/images/{foreign}:1")


def test_destroyed_app_leaves_no_image(new_box: Callable[..., Box]) -> None:
    box = new_box().start()
    assert box.push(box.repository(app(body="gone")), "gone").status == 0
    assert labelled("images", box.label)
    assert box.ssh("apps:destroy", "gone", "--force").status == 0
    eventually(lambda: labelled("images", box.label) == [], 10)
    box.settles()
