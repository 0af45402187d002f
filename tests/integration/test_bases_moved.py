"""Base images: listed, moved between boxes, and used though they cannot be renewed."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paasd.build.base_images import BaseImages
from paasd.build.buildkit import build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.context import file_entries
from paasd.build.recipes import Recipe, Recipes
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed
from paasd.progress import Progress

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    engine = DockerEngine("unix:///var/run/docker.sock")
    yield engine
    await engine.close()


def paasd(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paasd", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


@pytest.fixture
def data_dir(tmp_path: Path) -> str:
    return f"--data-dir={tmp_path}"


def test_base_images_move_to_another_box(data_dir: str, tmp_path: Path) -> None:
    assert paasd("base:build", data_dir, "static").returncode == 0
    listed = {image["name"]: image for image in json.loads(paasd("base:list", data_dir, "--json").stdout)}
    (name,) = [name for name in listed if name.startswith("paasd/static:")]
    assert listed[name]["state"] == "current" and listed[name]["size"].endswith(" MB")
    file = tmp_path / "bases.tar"
    exported = paasd("base:export", data_dir, str(file), name.removeprefix("paasd/"))
    assert exported.returncode == 0 and file.stat().st_size > 50_000_000, exported.stderr
    imported = paasd("base:import", data_dir, str(file))
    assert imported.stdout == f"-----> {name}\n", imported.stderr
    file.write_text("nothing")
    assert "did not take the images" in paasd("base:import", data_dir, str(file)).stderr
    assert "does not have paasd/none:1" in paasd("base:export", data_dir, str(file), "none@1").stderr
    assert "no base image is called 'none'" in paasd("base:build", data_dir, "none").stderr


async def test_one_that_cannot_be_renewed_is_used(engine: DockerEngine, tmp_path: Path) -> None:
    name = f"x-{secrets.token_hex(4)}"
    shared = Buildpacks(ROOT / "buildpacks").shared
    recipes = Recipes({name: Recipe(name, packages=(f"no-such-package-{name}",))}, shared)
    bases = BaseImages(engine, BuildConfig(), recipes, tmp_path)
    suite = (await bases.host()).suite
    with pytest.raises(BuildFailed, match="apt-get"):
        await bases.ensure(name, Progress())
    image = f"paasd/{name}:{suite}"
    dockerfile = {"Dockerfile": f"FROM paasd/base:{suite}\n"}
    await build_image(
        engine, file_entries(dockerfile, end=True), tag=image, labels={"paasd.base": name}, on_line=lambda line: None,
        timeout=60, idle_timeout=60,
    )  # fmt: skip
    try:
        lines: list[str] = []
        assert await bases.ensure(name, Progress(lines.append)) == image
        assert any("could not be renewed, so the one that is there is used" in line for line in lines)
        lines.clear()
        assert await bases.ensure(name, Progress(lines.append)) == image
        assert lines == []  # not tried again with every push
        assert await bases.state(name) == "stale"
    finally:
        await engine.request("DELETE", f"/images/{image}")
