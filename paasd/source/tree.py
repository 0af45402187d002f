"""Reads trees and files from Git's object store, as streams and within limits: a push of a few kilobytes may name
millions of paths and unpack to more than any disk holds."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from paasd.errors import SourceRejected
from paasd.names import shown
from paasd.source import git

SYMLINK, SUBMODULE = "120000", "160000"
_TREE = "040000"
MAX_FILES = 300_000
"""Folders count too: a tree may consist of nothing else."""
MAX_BYTES = 8 * 1024**3
MAX_LINK = 4096
_MAX_PATH = 4096
_MAX_LISTING = 64 * 1024**2
_TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the tree; `object_id` names its content."""

    mode: str
    object_id: str
    size: int

    @property
    def is_file(self) -> bool:
        return self.mode.startswith("100")


async def read_tree(repository: Path, revision: str, env: Mapping[str, str]) -> dict[str, Entry]:
    """Files, links and submodules by path. Stops at the first limit that is passed. Raises SourceRejected."""
    entries: dict[str, Entry] = {}
    count = total = 0
    args = ("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", revision)
    async with aclosing(_records(git.stream(repository, *args, env=env, timeout=_TIMEOUT))) as records:
        async for path, entry in records:
            count, total = count + 1, total + entry.size
            if count > MAX_FILES:
                raise SourceRejected(
                    f"the pushed commit holds more than {MAX_FILES} files and folders",
                    hint="Leave out what is generated, such as node_modules, with a .gitignore.",
                )
            if total > MAX_BYTES:
                raise SourceRejected(
                    f"the pushed commit unpacks to more than {MAX_BYTES / 1024**3:.0f} GiB",
                    hint="Keep large data outside the repository.",
                )
            if entry.mode == SYMLINK and entry.size > MAX_LINK:
                raise SourceRejected(f"the symbolic link {shown(path)} has a target of {entry.size} bytes")
            if entry.mode != _TREE:
                entries[path] = entry
    return entries


async def read_objects(
    repository: Path, object_ids: Iterable[str], env: Mapping[str, str]
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Content of each object, one at a time in memory. Ask for small ones only."""
    request = "".join(f"{object_id}\n" for object_id in object_ids).encode()
    buffer = bytearray()
    out = git.stream(repository, "cat-file", "--batch", "--buffer", env=env, stdin=request, timeout=_TIMEOUT)
    async with aclosing(out) as pieces:
        async for piece in pieces:
            buffer += piece
            start = 0
            while (end := buffer.find(b"\n", start)) >= 0:
                object_id, _, size = buffer[start:end].decode().split()
                stop = end + 1 + int(size)
                if len(buffer) <= stop:  # the content is followed by a line feed
                    break
                yield object_id, bytes(buffer[end + 1 : stop])
                start = stop + 1
            del buffer[:start]


async def _records(out: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[str, Entry], None]:
    pending, length = b"", 0
    async with aclosing(out) as pieces:
        async for piece in pieces:
            length += len(piece)
            *records, pending = (pending + piece).split(b"\0")
            if length > _MAX_LISTING or len(pending) > _MAX_PATH * 2:
                raise SourceRejected("the paths of the pushed commit are too long altogether")
            for record in records:
                meta, _, path = record.partition(b"\t")
                if len(path) > _MAX_PATH:
                    raise SourceRejected(f"the path {shown(os.fsdecode(path))} is too long")
                mode, _, object_id, size = meta.decode("ascii").split()
                yield os.fsdecode(path), Entry(mode, object_id, 0 if size == "-" else int(size))
