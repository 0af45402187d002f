"""The image that engine tests run: a static busybox, imported without a registry or network, and kept between runs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from paasd.docker_engine import DockerEngine
from paasd.errors import EngineNotFound

TEST_IMAGE = "paasd-test/busybox:1"
BUSYBOX = Path("/bin/busybox")
_APPLETS = ("cat", "echo", "head", "httpd", "id", "ls", "nc", "printf", "ps", "sh", "sleep", "stty", "test", "wget")


async def ensure_test_image(engine: DockerEngine) -> str:
    """The name of an image with /bin/sh and a few commands."""
    try:
        await engine.request("GET", f"/images/{TEST_IMAGE}/json")
    except EngineNotFound:
        await _import(engine)
    return TEST_IMAGE


async def _import(engine: DockerEngine) -> None:
    repository, tag = TEST_IMAGE.split(":")
    params = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": "ENV PATH=/bin"}
    async with engine.stream("POST", "/images/create", params=params, data=_root_file_system()) as stream:
        answers = [line async for line in stream.json_lines()]
    assert "error" not in answers[-1], answers


def _root_file_system() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in ("bin", "etc", "tmp"):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755))
        tar.add(BUSYBOX, "bin/busybox")
        for applet in _APPLETS:
            tar.addfile(_entry(f"bin/{applet}", tarfile.SYMTYPE, link="busybox"))
        passwd = b"root:x:0:0:root:/:/bin/sh\napp:x:10001:10001:app:/:/bin/sh\n"
        tar.addfile(_entry("etc/passwd", tarfile.REGTYPE, size=len(passwd)), io.BytesIO(passwd))
    return archive.getvalue()


def _entry(name: str, kind: bytes, *, mode: int = 0o755, link: str = "", size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, size
    return entry
