"""What the benchmarks share: a box without test instruments, a plain sshd, waiting for an answer, printing medians."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from tests.box import ROOT, Answer, Box, Done, eventually
from tests.ports import free_port

SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
AuthorizedKeysFile {root}/key.pub
PidFile {root}/sshd.pid
StrictModes no
UsePAM no
"""


@contextlib.contextmanager
def started_box(settings: str = "", **options: str) -> Iterator[Box]:
    """A running paasd as it is installed: bytecode compiled, no watch on blocking calls. Gone after the block, also
    when the benchmark is told to stop."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    box = Box(settings, **options)
    try:
        os.environ |= {"PAASD_BLOCKBUSTER": "", "PYTHONPYCACHEPREFIX": str(box.root / "bytecode")}
        _compile()
        yield box.start()
    finally:
        if box.process is not None and box.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                box.stop()  # a killed daemon would leave its sshd behind
        box.close()


def _compile() -> None:
    """All of paasd, and what it imports: with a prefix of its own, Python does not find what pip compiled."""
    compiling = ["-m", "compileall", "-q", str(ROOT / "paasd"), str(ROOT / "buildpacks")]
    importing = ["-c", "import paasd.cli.program, paasd.daemon"]
    for words in (compiling, importing):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run([sys.executable, *words], check=True, timeout=120, env=environment, cwd=ROOT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class PlainSshd:
    """A distribution's sshd on loopback for the user who runs the benchmark, with the box's own client key."""

    def __init__(self, root: Path, key: Path) -> None:
        self.port = free_port()
        self.user = getpass.getuser()
        root.mkdir(exist_ok=True)
        shutil.copy(f"{key}.pub", root / "key.pub")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / "host_key")], check=True)
        config = root / "sshd_config"
        config.write_text(SSHD.format(root=root, port=self.port))
        os.makedirs("/run/sshd", exist_ok=True)
        self._process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(config)], stderr=subprocess.DEVNULL)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class FirstAnswer:
    """Asks a host again and again in a thread of its own until an answer holds `text`."""

    def __init__(self, port: int, host: str, text: str, *, address: str = "127.0.0.1") -> None:
        self._place = (address, port)
        self._host = host
        self._text = text
        self._stop = threading.Event()
        self._at: float | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def at(self, timeout: float = 60) -> float:
        """When it came, on the monotonic clock."""
        self._thread.join(timeout)
        self._stop.set()
        if self._at is None:
            raise SystemExit(f"{self._host} did not answer {self._text!r} within {timeout:g} s")
        return self._at

    def cancel(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            if self._text in ask(*self._place, self._host):
                self._at = time.monotonic()
                return
            time.sleep(0.004)


def ask(address: str, port: int, host: str) -> str:
    """The body of `GET /`; empty when there was no answer."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def ok(done: Done) -> Done:
    """Ends the benchmark when a command failed."""
    if done.status:
        raise SystemExit(f"a command failed with status {done.status}:\n{done.all}")
    return done


def spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of rounds, so that a slow moment of the machine counts for both sides."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def verdict(text: str, met: bool) -> bool:
    print(f"  {text}: {'met' if met else 'MISSED'}")
    return met


def machine() -> str:
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {load:.2f} at the start"


__all__ = [
    "Answer",
    "Box",
    "FirstAnswer",
    "PlainSshd",
    "ask",
    "eventually",
    "machine",
    "ok",
    "percentile",
    "ratio",
    "spread",
    "started_box",
    "timed",
    "verdict",
]
