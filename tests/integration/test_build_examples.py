"""The example apps of the buildpacks, really built and really run on the hardened defaults."""

from __future__ import annotations

import asyncio
import io
import re
import secrets
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from paasd.build.assembly import base_images, build_context, build_files
from paasd.build.base_images import BaseImages
from paasd.build.buildkit import build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.drivers.docker import DockerDriver
from paasd.models import InstanceSpec, Secret
from paasd.progress import Progress
from tests.conformance.test_driver import SUBNETS, remove_all

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2] / "buildpacks"
PORT = 5000


class Repository:
    """A folder as a checkout."""

    def __init__(self, folder: Path) -> None:
        self.contents = {
            str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self.contents)

    def read(self, path: str) -> str | None:
        return self.contents.get(path)

    async def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, text in sorted(self.contents.items()):
                entry = tarfile.TarInfo(prefix + path)
                entry.size, entry.mode = len(text.encode()), 0o644
                tar.addfile(entry, io.BytesIO(text.encode()))
        yield archive.getvalue()


@dataclass
class Box:
    engine: DockerEngine
    driver: DockerDriver
    packs: Buildpacks
    bases: BaseImages
    label: str
    lines: list[str] = field(default_factory=list)

    async def build(self, repository: Repository) -> tuple[str, Plan]:
        self.lines.clear()
        plan = self.packs.plan(repository, PORT, suites=(await self.bases.host()).suites)
        images = await base_images(self.bases, plan, Progress())
        files = await build_files(self.packs, self.bases, plan, images, self.label, {})
        context = await build_context(plan, repository, files)
        built = await build_image(
            self.engine,
            context,
            tag=f"{self.label}:1",
            dockerfile=plan.dockerfile or "Dockerfile",
            labels={"paasd.instance": self.label},
            on_line=self.lines.append,
            timeout=300,
            idle_timeout=300,
        )
        return built.image, plan

    async def run(self, image: str, plan: Plan, command: str | None) -> str:
        """Start `web`; the URL it answers at."""
        subnet = await self.driver.ensure_network(self.label, SUBNETS)
        address = f"{subnet.rpartition('.')[0]}.20"
        spec = InstanceSpec(
            name=f"{self.label}-web",
            app_id="a",
            app="example",
            release=1,
            process_type="web",
            index=1,
            image=image,
            command=("/bin/sh", "-c", command) if command else None,
            env={"PORT": Secret(str(PORT)), "PAASD_RELEASE": Secret("v7")},
            network=self.label,
            address=address,
            user=plan.user,
        )
        await self.driver.start(spec)
        return f"http://{address}:{PORT}"

    async def get(self, url: str) -> tuple[int, str, dict[str, str]]:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(url) as response:
                        return response.status, await response.text(), dict(response.headers)
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    engine = DockerEngine("unix:///var/run/docker.sock")
    packs = Buildpacks(ROOT)
    label = f"paasd-test-{secrets.token_hex(4)}"
    bases = BaseImages(engine, BuildConfig(), packs.recipes, tmp_path)
    try:
        yield Box(engine, DockerDriver(engine, label), packs, bases, label)
    finally:
        await remove_all(engine, label)
        for image in await engine.request(
            "GET", "/images/json", params={"filters": {"label": [f"paasd.instance={label}"]}}
        ):
            await engine.request("DELETE", f"/images/{image['Id']}", params={"force": 1})
        await engine.close()


def procfile_command(repository: Repository) -> str:
    return repository.contents["Procfile"].partition(":")[2].strip()


async def test_the_python_example_answers(box: Box) -> None:
    repository = Repository(ROOT / "python/example")
    image, plan = await box.build(repository)
    url = await box.run(image, plan, procfile_command(repository))
    status, text, _ = await box.get(url)
    assert (status, text) == (200, "Hello from paasd, release v7\n")
    found = await box.engine.request("GET", f"/images/{image}/json")
    assert found["Config"]["User"] == "10001:10001"


async def test_a_changed_line_reruns_only_the_last_copy(box: Box) -> None:
    repository = Repository(ROOT / "python/example")
    await box.build(repository)
    repository.contents["app.py"] += f"# {secrets.token_hex(4)}\n"
    await box.build(repository)
    again = [line for line in box.lines if line.startswith("[") and not re.search("] FROM | CACHED$", line)]
    assert [line.partition("] ")[2] for line in again] == ["COPY --chown=10001:10001 app/ /app/"]
    assert any("pip install" in line for line in box.lines if line.endswith("CACHED"))


async def test_pip_settings_of_the_host_are_not_in_the_image(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = f"canary-{secrets.token_hex(8)}.invalid"
    monkeypatch.setenv("PIP_TRUSTED_HOST", canary)
    repository = Repository(ROOT / "python/example")
    repository.contents["requirements.txt"] = "itsdangerous\n"
    image, plan = await box.build(repository)
    images = await base_images(box.bases, plan, Progress())
    context = await build_context(plan, repository, await build_files(box.packs, box.bases, plan, images, "a", {}))
    assert canary.encode() in b"".join([piece async for piece in context])
    async with box.engine.stream("GET", f"/images/{image}/get") as stream:
        rest = b""
        async for chunk in stream.chunks():
            assert canary.encode() not in rest + chunk
            rest = chunk[-100:]


async def test_the_static_example_answers(box: Box) -> None:
    repository = Repository(ROOT / "static/example")
    repository.contents |= {".env": "SECRET=1", "Procfile": "x: y", "about/index.html": "about", "a-0123abcd.js": "1"}
    image, plan = await box.build(repository)
    url = await box.run(image, plan, plan.process_types[0].command)
    status, text, headers = await box.get(f"{url}/")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert "Hello from paasd" in text
    assert (await box.get(f"{url}/style.css"))[2]["Content-Type"] == "text/css"
    assert "immutable" in (await box.get(f"{url}/a-0123abcd.js"))[2]["Cache-Control"]
    assert (await box.get(f"{url}/about"))[:2] == (200, "about")
    missing = await box.get(f"{url}/none")
    assert missing[0] == 404 and "There is no such page" in missing[1]
    for hidden in ("/.env", "/Procfile"):
        status, text, _ = await box.get(url + hidden)
        assert status == 404 and "SECRET" not in text


async def test_the_dockerfile_example_answers(box: Box) -> None:
    repository = Repository(ROOT / "dockerfile/example")
    repository.contents["notes.md"] = "left out by .dockerignore"
    image, plan = await box.build(repository)
    url = await box.run(image, plan, None)
    assert (await box.get(url))[:2] == (200, "Hello from paasd, release v7\n")
    listing = await box.engine.exec(f"{box.label}-web", ["ls", "/app"])
    assert listing == (0, b"Dockerfile\nserver.py\n")
