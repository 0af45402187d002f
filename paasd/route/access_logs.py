"""The directory `access/`, in which Nginx's workers write the access logs of apps: reading, ageing and removing them.

`<app>.log` and, once it was full, the one before it as `<app>.log.1`. Files belong to the workers' user, so nothing is
believed of them but their bytes: no link is followed."""

from __future__ import annotations

import calendar
import contextlib
import json
import logging
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from paasd.names import app_name

_log = logging.getLogger(__name__)

_HALF_AGE = 7 * 86400
"""Seconds after which a file gives way to the next, and after which it goes then."""
_SUFFIXES = (".log", ".log.1")


class AccessLogs:
    """Blocking."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self, uid: int | None) -> None:
        """Make the directory the workers' own; None leaves it ours."""
        self._directory.mkdir(exist_ok=True)
        self._directory.chmod(0o700)
        if uid is not None:
            os.chown(self._directory, uid, -1)

    def path(self, app: str) -> Path:
        return self._directory / f"{app_name(app)}.log"

    def remove(self, app: str) -> None:
        for suffix in _SUFFIXES:
            _remove(self._directory / f"{app_name(app)}{suffix}")

    def keep_only(self, apps: Collection[str]) -> None:
        """Remove the logs of all others."""
        for path in self._files():
            if path.name.partition(".log")[0] not in apps:
                _remove(path)

    def age(self) -> None:
        """No line is kept for more than two weeks."""
        for path in self._files():
            with contextlib.suppress(OSError):  # not even of directories that should not be there
                if path.suffix == ".1":
                    if path.lstat().st_mtime < time.time() - _HALF_AGE:
                        path.unlink(missing_ok=True)
                elif (began := _began(path)) is not None and began < time.time() - _HALF_AGE:
                    path.replace(path.with_name(f"{path.name}.1"))

    def _files(self) -> list[Path]:
        return list(self._directory.iterdir()) if self._directory.exists() else []


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # what should not be there must not keep sites from being served
        _log.warning("the access log %s cannot be removed: %s", path, error)


def _began(path: Path) -> float | None:
    """When the first line of a log was written."""
    if (file := open_log(path)) is None:
        return None
    with file:
        found = parsed(file.readline(64 * 1024))
    try:
        return calendar.timegm(time.strptime(found["time"][:19], "%Y-%m-%dT%H:%M:%S")) if found else 0.0
    except (ValueError, TypeError, KeyError):
        return 0.0  # no line of ours


def parsed(line: bytes) -> dict[str, Any] | None:
    """None for what is no line of an access log."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def open_log(path: Path) -> BinaryIO | None:
    """None if there is no such file; neither links nor pipes are."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return os.fdopen(fd, "rb")
