"""The tar of a small checkout, of what was read already: starting `git archive` takes longer than to write it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from paasd.source.tree import Entry

MAX_BYTES, _MAX_FILES = 1024 * 1024, 500


def small_archive(
    entries: Mapping[str, Entry], contents: Mapping[str, bytes], prefix: str, modified: int
) -> bytes | None:
    """What `git archive` gives with umask 0022; None for what is not small, has links, or was not read. `contents`: by
    object; `modified`: seconds since 1970."""
    if len(entries) > _MAX_FILES or sum(entry.size for entry in entries.values()) > MAX_BYTES:
        return None
    if any(not entry.is_file or entry.object_id not in contents for entry in entries.values()):
        return None
    tar = bytearray()
    for folder in _folders(entries, prefix):
        tar += _header(folder, tarfile.DIRTYPE, 0o755, 0, modified)
    for path, entry in entries.items():
        content = contents[entry.object_id]
        mode = 0o755 if entry.mode == "100755" else 0o644
        tar += _header(prefix + path, tarfile.REGTYPE, mode, len(content), modified)
        tar += content + b"\0" * (-len(content) % tarfile.BLOCKSIZE)
    return bytes(tar) + b"\0" * (2 * tarfile.BLOCKSIZE)


def _folders(entries: Mapping[str, Entry], prefix: str) -> Iterator[str]:
    """Each before those in it."""
    found = {str(parent) for path in entries for parent in PurePosixPath(prefix + path).parents}
    return iter(sorted(found - {"."}))


def _header(path: str, kind: bytes, mode: int, size: int, modified: int) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, modified
    entry.uname = entry.gname = "root"
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")  # names are bytes, whatever they mean
