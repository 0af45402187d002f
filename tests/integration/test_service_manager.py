"""What systemd hears of the daemon, on a socket like the one it listens on."""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.box import Box, eventually
from tests.images import TEST_IMAGE

pytestmark = pytest.mark.engine

INTERVAL = 0.5


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(3 * INTERVAL * 1e6)))
        yield listener


def push(box: Box, text: str) -> bool:
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "index.html": text}
    files["Procfile"] = "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n"
    return box.push(box.repository(files), "one", "+main").status == 0


def everything_heard(manager: socket.socket) -> list[bytes]:
    manager.setblocking(False)
    heard = []
    try:
        while True:
            heard.append(manager.recv(100))
    except BlockingIOError:
        manager.settimeout(30)
        return heard


def test_ready_alive_and_stopping_are_told(manager: socket.socket) -> None:
    """A daemon that hangs is silent, which is all that systemd needs to end it; its apps serve on meanwhile."""
    box = Box().start()
    try:
        assert manager.recv(100) == b"READY=1"
        assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert push(box, "one")
        assert box.process is not None
        box.process.send_signal(signal.SIGSTOP)
        everything_heard(manager)
        manager.settimeout(4 * INTERVAL)
        with pytest.raises(TimeoutError):
            manager.recv(100)
        assert box.get("one").text == "one"
        box.kill()
        everything_heard(manager)
        box.start()
        assert manager.recv(100) == b"READY=1"
        assert box.stop() == 0
        assert b"STOPPING=1" in everything_heard(manager)
    finally:
        box.close()


def test_descriptors_run_out(box: Box) -> None:
    """Connections to the API take all that the daemon may open. Apps serve on; when they go, so does the trouble."""
    assert push(box, "before")
    assert box.process is not None
    daemon = psutil.Process(box.process.pid)
    before = daemon.num_fds()
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (before + 50, limits[1]))
    try:
        with ExitStack() as connections:
            for _ in range(200):
                connection = connections.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.setblocking(False)
                try:
                    connection.connect(str(box.data / "run" / "api.sock"))
                except BlockingIOError:
                    break  # nobody takes connections any more, and the queue is full
            eventually(lambda: daemon.num_fds() >= before + 48, 20)
            assert box.get("one").text == "before"
        eventually(lambda: daemon.num_fds() <= before + 5, 30)
        assert push(box, "after")
        assert box.get("one").text == "after"
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
