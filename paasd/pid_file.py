"""Owns `run/paasd.pid` and `run/settings.json`: which daemon has a data directory, and how it was started.

The lock on the pid file (flock(2)) ends with the process, however that ends, so a stale file never bars a start.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paasd.errors import Conflict

_POLL = 0.05


class PidFile:
    """Held by the daemon from `acquire` to `release`."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "paasd.pid"
        self._settings = run_dir / "settings.json"
        self._file: int | None = None

    def acquire(self, settings: Mapping[str, Any]) -> None:
        """Raises Conflict when another daemon has the data directory."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise Conflict(
                f"another paasd (pid {_read(self._path)}) already runs on {self._path.parent.parent}",
                hint="Stop it with paasd stop, or give this one another --data-dir.",
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        temporary = self._settings.with_suffix(".new")
        temporary.write_text(json.dumps(settings, indent=1))
        temporary.replace(self._settings)

    def release(self) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def running(self) -> int | None:
        """Process id of the daemon that holds the lock; None when none does."""
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(self._path)
        finally:
            os.close(file)
        return None

    def wait_until_free(self, seconds: float) -> bool:
        """False when the daemon still runs after that time."""
        deadline = time.monotonic() + seconds
        while self.running() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def last_settings(self) -> dict[str, Any]:
        """Settings by dotted name of the daemon that ran here last; empty when none ever did."""
        try:
            found = json.loads(self._settings.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
