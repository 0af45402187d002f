"""The engine itself stops and comes back. On an engine of the test's own, so that nobody else notices."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from paasd.docker_engine import DockerEngine
from tests.box import Box, eventually, unix_request
from tests.images import TEST_IMAGE, ensure_test_image

pytestmark = [pytest.mark.engine, pytest.mark.slow]

_PROCFILE = "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\nworker: exec sleep 3600\n"


class Engine:
    """A second dockerd beside the machine's: own data, own socket, and no hand on the firewall."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.socket = self.root / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        # A bridge of its own: with `none` the engine takes docker0 away, which belongs to the machine's engine.
        self._bridge = f"pe{secrets.token_hex(4)}"
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", "10.254.254.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def start(self) -> None:
        command = ["dockerd", "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec")]
        command += ["--host", f"unix://{self.socket}", "--pidfile", str(self.root / "pid"), f"--bridge={self._bridge}"]
        command += ["--iptables=false", "--ip-masq=false", "--shutdown-timeout", "5"]
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        eventually(self._answers, 60)

    def end(self, number: int) -> None:
        assert self._process is not None
        containerd = psutil.Process(int((self.root / "exec" / "containerd" / "containerd.pid").read_text()))
        self._process.send_signal(number)
        self._process.wait(60)
        containerd.wait(30)  # dies with its parent, a moment later; a new engine would take it for its own

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return unix_request(str(self.socket), method, path, body)[1]

    def remove(self) -> None:
        if self._process is not None:
            if self._process.poll() is not None:
                self.start()  # only an engine takes its containers down cleanly
            for container in self.request("GET", "/containers/json?all=1"):
                self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
            for network in self.request("GET", "/networks"):
                if network["Name"] not in ("host", "none", "bridge"):
                    self.request("DELETE", f"/networks/{network['Id']}")
            self.end(signal.SIGTERM)
        _ip("link", "delete", self._bridge)
        # The engine mounts its data directory onto itself and leaves it so.
        subprocess.run(["umount", str(self.root / "data")], check=False, timeout=10)
        shutil.rmtree(self.root, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "log").read_text()
        try:
            return bool(unix_request(str(self.socket), "GET", "/version")[0] == 200)
        except OSError:
            return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    try:
        engine.start()
        asyncio.run(_import_image(engine))
        yield engine
    finally:
        engine.remove()


async def _import_image(engine: Engine) -> None:
    client = DockerEngine(f"unix://{engine.socket}")
    try:
        await ensure_test_image(client)
    finally:
        await client.close()


@pytest.fixture(scope="module")
def box(engine: Engine) -> Iterator[Box]:
    settings = f'docker_host = "unix://{engine.socket}"\n[run]\nfirewall = false\nsubnet_pool = "10.231.0.0/20"\n'
    box = Box(f"{settings}stop_timeout = 2\ndrain = 1.0\n").start()
    try:
        files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "Procfile": _PROCFILE}
        for name in ("one", "two"):
            done = box.push(box.repository({**files, "index.html": name}), name)
            assert done.status == 0, done
        assert box.ssh("ps:scale", "two", "web=2", "worker=1").status == 0
        yield box
    finally:
        box.close()


def assert_all_runs(box: Box) -> None:
    eventually(lambda: all(box.get(name).text == name for name in ("one", "two")), 60)
    eventually(lambda: box.api("GET", "/state").get("differences") == [], 60)
    states = [i["state"] for name in ("one", "two") for i in box.json("ps:report", name)["instances"]]
    assert states == ["running"] * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_engine_restarted(engine: Engine, box: Box, number: int) -> None:
    addresses = [i["address"] for i in box.json("ps:report", "two")["instances"]]
    engine.end(number)
    try:
        refused = box.push(box.repository({"index.html": "x", "Dockerfile": f"FROM {TEST_IMAGE}\n"}), "one", "+main")
        assert refused.status != 0
        assert "the container engine does not answer" in refused.all and "Start the Docker engine" in refused.all
        report = box.ssh("ps:report", "one")
        assert report.status == 1 and "the container engine does not answer" in report.err
        assert box.ssh("apps:list").status == 0
    finally:
        engine.start()
    assert_all_runs(box)
    assert [i["address"] for i in box.json("ps:report", "two")["instances"]] == addresses


def test_daemon_started_without_an_engine(engine: Engine, box: Box) -> None:
    """The API answers meanwhile, and all is well once the engine is back."""
    assert box.stop() == 0
    engine.end(signal.SIGTERM)
    try:
        box.start()
        assert box.ssh("apps:list").out.split()[-2:] == ["one", "two"]
        time.sleep(2)
    finally:
        engine.start()
    assert_all_runs(box)


def test_push_after_all_that(box: Box) -> None:
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "Procfile": _PROCFILE, "index.html": "new"}
    done = box.push(box.repository(files), "one", "+main")
    assert done.status == 0, done
    assert box.get("one").text == "new"
