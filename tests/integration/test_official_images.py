"""Versions the distribution has not come from a registry's official images; the registry is a real one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.box import Box, docker, eventually, unix_request
from tests.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
# No version that anybody has, so that no base image of the machine is replaced.
VERSION = "3.55"
BASE = f"paasd/python:{VERSION}"
DOCKERFILE = (
    "FROM paasd/python:3.11\n"
    'RUN ["ln", "-s", "/usr/bin/python3.11", "/usr/local/bin/python%s"]\n'
    'ENTRYPOINT ["/no/such/program"]\n'
)
APP = {
    ".python-version": VERSION,
    "main.py": "import http.server, os, sys\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200)\n"
    "        self.end_headers()\n"
    "        self.wfile.write(os.readlink('/opt/venv/bin/python3').encode())\n"
    "http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()\n",
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Address of a real registry, empty."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is not installed: apt-get install docker-registry")
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/images\n"
        f"http:\n  addr: 127.0.0.1:{port}\nlog:\n  level: error\n"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(30)
        for name in (BASE, f"paasd/python-build:{VERSION}"):
            docker("DELETE", f"/images/{name}?force=1")


def publish(box: Box, registry: str) -> None:
    """A stand-in for python:3.55-slim-bookworm, made by a push of its own Dockerfile."""
    image = f"{registry}/library/python:{VERSION}-slim-bookworm"
    repository = box.repository(
        {
            "Dockerfile": DOCKERFILE % VERSION
            + 'RUN ["sed", "-i", "/10001/d", "/etc/passwd", "/etc/group"]\nRUN ["rm", "-r", "/app"]\n'
        }
    )
    command = ["docker", "build", "-q", "-t", image, str(repository.path)]
    environment = {"DOCKER_BUILDKIT": "0", "PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(box.root)}
    subprocess.run(command, check=True, timeout=120, env=environment, capture_output=True)
    subprocess.run(["docker", "push", "-q", image], check=True, timeout=120, capture_output=True)
    docker("DELETE", f"/images/{image}?force=1")


def test_an_official_image_gives_a_version(new_box: Callable[..., Box], registry: str) -> None:
    box = new_box(f'[build]\nofficial_images = "{registry}/library"\n').start()
    publish(box, registry)
    pushed = box.push(box.repository(APP), "official")
    assert pushed.status == 0, pushed.err
    assert f"Python {VERSION}, from .python-version, with the official image" in pushed.err
    eventually(lambda: box.get("official").status == 200)
    assert unix_request("/var/run/docker.sock", "GET", f"/images/{BASE}/json")[0] == 200
    who = box.ssh("run", "official", "id")
    assert "uid=10001(app) gid=10001(app)" in who.out


def test_a_registry_that_is_away_is_named_with_the_versions_there_are(new_box: Callable[..., Box]) -> None:
    port = free_port()
    box = new_box(f'[build]\nofficial_images = "localhost:{port}/library"\n').start()
    pushed = box.push(box.repository(APP), "official")
    assert pushed.status != 0
    image = f"localhost:{port}/library/python:{VERSION}-slim-bookworm"
    assert f"python {VERSION} is none of the versions made here (3.11, 3.12, 3.13, 3.14)" in pushed.err
    assert f"its official image {image}" in pushed.err
    assert "check the registry in build.official_images" in pushed.err
