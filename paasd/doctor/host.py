"""The machine: daemon, programs, disk, clock."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from paasd import __version__
from paasd.config import Config
from paasd.doctor.finding import Finding, fail, ok, warn
from paasd.pid_file import PidFile

_GIB = 1024**3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START = "Start it: systemctl start paasd (without systemd: run install.sh again, or paasd serve)"
_SKEW = 120.0


async def check(config: Config) -> list[Finding]:
    programs = await asyncio.gather(
        _program("git", ["git", "--version"], "git"),
        _program("mmdebstrap", ["mmdebstrap", "--version"], "mmdebstrap"),
        _program("ssh", ["ssh", "-V"], "openssh-client"),
        *([_program("sshd", ["sshd", "-V"], "openssh-server")] if config.ssh.transport == "openssh" else []),
    )
    rest = await asyncio.to_thread(_blocking, config)
    return [*rest, *programs]


def _blocking(config: Config) -> list[Finding]:
    pid = PidFile(config.run_dir).running()
    daemon = ok("daemon", f"paasd {__version__} runs (pid {pid})") if pid else warn("daemon", "it does not run", _START)
    python = ok("python", sys.version.split()[0])
    return [daemon, python, space("disk", config.data_dir, config.keep.free_bytes), clock(config.database)]


def space(check_name: str, path: Path, needed: int) -> Finding:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    text = f"{free / _GIB:.1f} GiB free for {path}, builds need {needed / _GIB:.1f}"
    if free < needed:
        return fail(
            check_name,
            text,
            "Free space with: paasd cleanup (--all for the build cache too), or lower keep.free_bytes.",
        )
    if free < 2 * needed:
        return warn(check_name, text, "Free space soon: paasd cleanup")
    return ok(check_name, text)


def clock(database: Path) -> Finding:
    """A clock that was set back breaks time-outs, certificates and the order of events."""
    now = time.time()
    newest = max(_newest_event(database), Path(__file__).stat().st_mtime)
    if now + _SKEW < newest:
        text = f"the clock says {_shown(now)}, but something of paasd is from {_shown(newest)}"
        return fail("clock", text, "Set it, and keep it right with systemd-timesyncd or chrony.")
    return ok("clock", _shown(now))


def _newest_event(database: Path) -> float:
    if not database.exists():
        return 0.0
    # A database that nobody has open would get a log and an index to read it with: files of root's.
    how = "mode=ro" if database.with_name(f"{database.name}-wal").exists() else "immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?{how}", uri=True, timeout=5)) as connection:
            found = connection.execute("SELECT max(at) FROM events").fetchone()
    except sqlite3.Error:
        return 0.0
    return float(found[0] or 0)


def _shown(instant: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(instant))


async def _program(name: str, command: list[str], package: str) -> Finding:
    path = shutil.which(command[0], path=_PATH)
    if path is None:
        return fail(name, f"{command[0]} is not installed", f"apt-get install {package}")
    process = await asyncio.create_subprocess_exec(
        path,
        *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
        return fail(name, f"{path} does not answer", f"apt-get install --reinstall {package}")
    lines = [line for line in output.decode(errors="replace").splitlines() if any(c.isdigit() for c in line)]
    return ok(name, (lines or [path])[0].strip())
