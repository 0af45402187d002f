"""An index of the host's own, with a package that nobody else has: pip and uv install from it."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from pip._internal.models.index import PyPI

from tests.box import Box, docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
WHEEL = "paasd_private-1.0-py3-none-any.whl"
MAIN = """
import http.server, os, paasd_private

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(paasd_private.WORD.encode())

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
PROJECT = '[project]\nname = "a"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["paasd-private"]\n'
LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "a"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "paasd-private" }}]

[package.metadata]
requires-dist = [{{ name = "paasd-private" }}]

[[package]]
name = "paasd-private"
version = "1.0"
source = {{ registry = "{public}" }}
wheels = [{{ url = "https://no.invalid/{wheel}", hash = "sha256:{digest}", size = {size} }}]
"""


def wheel() -> bytes:
    made = io.BytesIO()
    info = "paasd_private-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("paasd_private.py", "WORD = 'from an index of our own'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: paasd-private\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"paasd_private.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return made.getvalue()


@dataclass
class Index:
    address: str
    data: bytes


_SERVER = """
import base64, http.server, os

wheel = base64.b64decode(os.environ["WHEEL"])
link = f'<a href="/files/{os.environ["NAME"]}#sha256={os.environ["DIGEST"]}">{os.environ["NAME"]}</a>'
known = {"/simple/paasd-private/": ("text/html", link.encode())}
known["/files/" + os.environ["NAME"]] = ("application/zip", wheel)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind, body = known.get(self.path, ("text/html", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture
def index() -> Iterator[Index]:
    """A simple index where builds can reach it: in a container beside theirs."""
    data = wheel()
    digest = hashlib.sha256(data).hexdigest()
    environment = {"WHEEL": base64.b64encode(data).decode(), "NAME": WHEEL, "DIGEST": digest}
    body = {
        "Image": "paasd/python:3.13",
        "Cmd": ["python3", "-c", _SERVER],
        "Env": [f"{name}={value}" for name, value in environment.items()],
    }
    container = docker("POST", "/containers/create", body)["Id"]
    try:
        docker("POST", f"/containers/{container}/start")
        address = docker("GET", f"/containers/{container}/json")["NetworkSettings"]["IPAddress"]
        yield Index(f"{address}:8080", data)
    finally:
        docker("DELETE", f"/containers/{container}?force=1")


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_packages_come_from_the_hosts_own_index(
    new_box: Callable[..., Box], index: Index, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{index.address}/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", index.address.partition(":")[0])
    box = new_box().start()
    lock = LOCK.format(
        public=PyPI.simple_url, wheel=WHEEL, digest=hashlib.sha256(index.data).hexdigest(), size=len(index.data)
    )
    files = {
        "pip": {"requirements.txt": "paasd-private==1.0\n"},
        "uv": {"pyproject.toml": PROJECT, "uv.lock": lock},
    }
    pushed = box.push(box.repository({**files[tool], "main.py": MAIN}), "private")
    assert pushed.status == 0, pushed.err
    assert box.get("private").text == "from an index of our own"
