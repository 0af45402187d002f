"""A container engine of a test's own, for what would disturb whoever else uses the machine's."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from paasd.docker_engine import DockerEngine
from tests.box import eventually, unix_request
from tests.images import ensure_test_image


class Engine:
    """A second dockerd beside the machine's: own data, own socket, own control group, and no hand on the firewall.

    `disk` puts its data on a file system of that many bytes.
    """

    def __init__(self, disk: int = 0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.socket = self.root / "docker.sock"
        self.cgroup = self.root.name
        self.gateway = f"10.254.{secrets.randbelow(250)}.1"
        self.pool = f"10.{235 + secrets.randbelow(15)}.{16 * secrets.randbelow(16)}.0/20"
        """For `run.subnet_pool`: other engines cannot see which networks this one has."""
        if disk:
            _make_disk(self.root / "disk", self.root / "data", disk)
        self._process: subprocess.Popen[bytes] | None = None
        # A bridge of its own: with `none` the engine takes docker0 away, which belongs to the machine's engine.
        self._bridge = f"pe{secrets.token_hex(4)}"
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.gateway}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def start(self) -> None:
        command = ["dockerd", "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec")]
        command += ["--host", f"unix://{self.socket}", "--pidfile", str(self.root / "pid"), f"--bridge={self._bridge}"]
        command += ["--iptables=false", "--ip-masq=false", "--shutdown-timeout", "5", "--cgroup-parent", self.cgroup]
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        eventually(self._answers, 60)

    def end(self, number: int) -> None:
        assert self._process is not None
        containerd = psutil.Process(int((self.root / "exec" / "containerd" / "containerd.pid").read_text()))
        self._process.send_signal(number)
        self._process.wait(60)
        containerd.wait(30)  # dies with its parent, a moment later; a new engine would take it for its own

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It hangs: connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return unix_request(str(self.socket), method, path, body)[1]

    def prepare(self) -> None:
        """Give it the test image."""
        asyncio.run(_import_image(self))

    def remove(self) -> None:
        if self._process is not None:
            if self._process.poll() is not None:
                self.start()  # only an engine takes its containers down cleanly
            for container in self.request("GET", "/containers/json?all=1"):
                self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
            for network in self.request("GET", "/networks"):
                if network["Name"] not in ("host", "none", "bridge"):
                    eventually(lambda path=f"/networks/{network['Id']}": self._deleted(path))
            self.end(signal.SIGTERM)
        _ip("link", "delete", self._bridge)
        # The engine mounts its data directory onto itself and leaves it so; below that may be a disk.
        for _ in range(2):
            subprocess.run(["umount", str(self.root / "data")], check=False, timeout=10, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.root, ignore_errors=True)
        for controller in Path("/sys/fs/cgroup").iterdir():
            for folder in (controller / self.cgroup / "buildkit", controller / self.cgroup):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _deleted(self, path: str) -> bool:
        return unix_request(str(self.socket), "DELETE", path)[0] in (204, 404)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "log").read_text()
        try:
            return bool(unix_request(str(self.socket), "GET", "/version")[0] == 200)
        except OSError:
            return False


@contextlib.contextmanager
def running_engine(disk: int = 0) -> Iterator[Engine]:
    """One with the test image, until the block ends."""
    engine = Engine(disk)
    try:
        engine.start()
        engine.prepare()
        yield engine
    finally:
        engine.remove()


async def _import_image(engine: Engine) -> None:
    client = DockerEngine(f"unix://{engine.socket}")
    try:
        await ensure_test_image(client)
    finally:
        await client.close()


def _make_disk(image: Path, mount: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    mount.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True, timeout=60)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10)
