"""Writing the edge's files: each has the old text or the new one, whenever the power goes."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Write `path` so that it has the old text or the new one, whenever the power goes."""
    prepare_file(path, text)
    commit_file(path)


def prepare_file(path: Path, text: str) -> None:
    """Everything of replace_file that can fail for want of space."""
    with open(_temporary(path), "w", opener=_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def commit_file(path: Path) -> None:
    os.replace(_temporary(path), path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def discard_file(path: Path) -> None:
    _temporary(path).unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
