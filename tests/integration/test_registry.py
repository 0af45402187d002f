"""Images pushed to a real registry, that of the distribution."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.apps import app
from tests.box import Box
from tests.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
USER, PASSWORD = "ci", f"pw-{secrets.token_hex(8)}"


@dataclass
class Registry:
    """`docker-registry` on a port of its own, with a user, its data in a folder."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        config = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.server},
            "auth": {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}},
        }
        (self.folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
        log = (self.folder / "log").open("wb")
        command = ["docker-registry", "serve", str(self.folder / "config.json")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def digest(self, name: str, tag: str) -> str:
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, f"http://{self.server}", USER, PASSWORD)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        request = urllib.request.Request(
            f"http://{self.server}/v2/{name}/manifests/{tag}",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        with opener.open(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    import bcrypt

    line = f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n"
    (tmp_path / "htpasswd").write_text(line)
    registry = Registry(tmp_path, free_port())
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


def test_every_release_is_pushed_with_its_digest(box: Box, registry: Registry) -> None:
    box.ssh("apps:create", "pushed")
    done = box.ssh("registry:set", "pushed", f"{registry.server}/team", "--user", USER, stdin=f"{PASSWORD}\n")
    assert done.status == 0, done.err
    repository = box.repository(app(body="one"))
    first = box.push(repository, "pushed")
    assert first.status == 0 and f"Pushing {registry.server}/team/pushed:v1" in first.err, first.err
    report = box.json("registry:report", "pushed")
    assert [(i["release"], i["digest"]) for i in report["images"]] == [("v1", registry.digest("team/pushed", "v1"))]
    assert PASSWORD not in json.dumps(report) + first.all
    assert PASSWORD.encode() not in (box.data / "state.db").read_bytes()
    repository.commit(app(body="two"))
    assert box.push(repository, "pushed").status == 0
    assert registry.digest("team/pushed", "v2") != registry.digest("team/pushed", "v1")
    tags = subprocess.run(["docker", "images", "-q", f"{registry.server}/team/pushed"], capture_output=True, text=True)
    assert tags.stdout == ""  # nothing of it stays on the box

    box.ssh("registry:unset", "pushed")
    assert "has no registry" in box.ssh("registry:push", "pushed").err
    box.ssh("registry:set", "pushed", registry.server, "--manual", "--user", USER, stdin=PASSWORD)
    assert box.ssh("registry:push", "pushed", "v1").status == 0
    assert registry.digest("pushed", "v1")


def test_a_registry_in_trouble_never_stops_a_release(box: Box, registry: Registry) -> None:
    box.ssh("apps:create", "trouble")
    repository = box.repository(app(body="one"))
    box.ssh("registry:set", "trouble", registry.server, "--user", USER, stdin="wrong")
    pushed = box.push(repository, "trouble")
    assert pushed.status == 0 and "v1 is live, but its image was not pushed" in pushed.err, pushed.err
    assert "Set user and password anew" in pushed.err

    box.ssh("registry:set", "trouble", registry.server, "--user", USER, stdin=PASSWORD)
    registry.stop()
    repository.commit(app(body="two"))
    pushed = box.push(repository, "trouble")
    assert pushed.status == 0 and "v2 is live, but its image was not pushed" in pushed.err, pushed.err
    assert box.get("trouble").text == "two"
    assert box.json("registry:report", "trouble")["images"] == []

    registry.start()
    assert box.ssh("registry:push", "trouble").status == 0
    assert [i["release"] for i in box.json("registry:report", "trouble")["images"]] == ["v2"]


def test_a_full_registry_says_so(box: Box, registry: Registry) -> None:
    # Full for the manifest: the engine tries each layer five times, with 50 s of pauses.
    data = registry.folder / "data" / "docker" / "registry" / "v2" / "repositories" / "full" / "_manifests"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "none", str(data)], check=True, timeout=10)
    try:
        box.ssh("apps:create", "full")
        box.ssh("registry:set", "full", registry.server, "--user", USER, stdin=PASSWORD)
        pushed = box.push(box.repository(app(body="one")), "full")
        assert pushed.status == 0 and "v1 is live, but its image was not pushed" in pushed.err, pushed.err
        assert b"no space left on device" in (registry.folder / "log").read_bytes()
        assert box.get("full").text == "one"
    finally:
        registry.stop()
        subprocess.run(["umount", str(data)], check=True, timeout=10)
        shutil.rmtree(data, ignore_errors=True)


def test_names_of_registries(box: Box) -> None:
    box.ssh("apps:create", "named")
    for wrong in ("http://x", "UPPER/x", "a b", "x/../y", "-x"):
        assert box.ssh("registry:set", "named", "--", f"'{wrong}'").status != 0
    assert box.json("registry:report", "named")["server"] is None
