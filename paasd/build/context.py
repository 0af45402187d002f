"""Puts build contexts together as one tar stream: small files of ours first, then the checkout's own tar.

For a Dockerfile of the repository, `.dockerignore` is applied on the way. Nothing is held in memory but one header or
piece at a time.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping

from paasd.build.buildkit import pin_frontend
from paasd.build.dockerignore import DockerIgnore
from paasd.build.plan import Source
from paasd.errors import SourceRejected
from paasd.names import shown

BLOCK = 512
_END = b"\0" * (2 * BLOCK)
_LONG = {b"x", b"g", b"L", b"K"}  # pax headers and GNU long names: they describe the entry that follows
_MAX_HEADER_DATA = 1024 * 1024


async def file_entries(files: Mapping[str, str], *, end: bool = False) -> AsyncIterator[bytes]:
    """Tar entries of `files` (path → text) without an end mark, so that another tar may follow; with one if `end`."""
    for path, text in files.items():
        data = text.encode()
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(data), 0o644
        yield entry.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % BLOCK)
    if end:
        yield _END


async def joined(files: Mapping[str, str], archive: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`files` followed by the entries of `archive`. A path in both: the archive's entry comes later and wins, so keep
    the two apart (`checkout.tar("app/")`)."""
    async for piece in file_entries(files):
        yield piece
    async for piece in archive:
        yield piece


async def repository_context(source: Source, archive: AsyncIterator[bytes], dockerfile: str) -> AsyncIterator[bytes]:
    """The context of a repository that brings its own Dockerfile: `.dockerignore` applied, the frontend pinned.

    Raises SourceRejected for a Dockerfile that asks for a foreign frontend.
    """
    text = await asyncio.to_thread(source.read, dockerfile)
    if text is None:
        raise SourceRejected(f"the repository has no file {shown(dockerfile)}")
    ignore = await asyncio.to_thread(_ignore_text, source, dockerfile)
    rules = DockerIgnore(ignore)
    own = {dockerfile: pin_frontend(text)}
    async for piece in file_entries(own):
        yield piece
    async for piece in filtered(archive, lambda path: path not in own and rules.keeps(path)):
        yield piece


def _ignore_text(source: Source, dockerfile: str) -> str:
    return source.read(f"{dockerfile}.dockerignore") or source.read(".dockerignore") or ""


async def filtered(archive: AsyncIterator[bytes], keep: Callable[[str], bool]) -> AsyncIterator[bytes]:
    """The entries of `archive` whose path `keep` accepts, byte for byte. Raises SourceRejected on a broken tar."""
    blocks = _Blocks(archive)
    held = bytearray()  # headers that belong to the entry after them
    path: str | None = None
    while (header := await blocks.take(BLOCK)).strip(b"\0"):
        kind, size = header[156:157], _size(header)
        padded = size + -size % BLOCK
        if kind in _LONG:
            data = await blocks.take(padded) if size <= _MAX_HEADER_DATA else b""
            if len(data) < padded:
                raise SourceRejected("the repository holds a file name that is too long to be built")
            path = _long_path(kind, data[:size]) or path
            held += header + data
            if kind == b"g":
                yield bytes(held)
                held.clear()
            continue
        kept = keep(_clean(path if path is not None else _short_path(header)))
        if kept:
            yield bytes(held) + header
        async for piece in blocks.pieces(padded):
            if kept:
                yield piece
        held.clear()
        path = None
    yield _END


class _Blocks:
    """Reads exact amounts from a stream of pieces."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._buffer = io.BytesIO()
        self._left = 0

    async def take(self, size: int) -> bytes:
        """Exactly `size` bytes, or nothing at the end."""
        taken = bytearray()
        async for piece in self.pieces(size):
            taken += piece
        return bytes(taken)

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        while size:
            if not self._left and not await self._more():
                return
            piece = self._buffer.read(min(size, self._left))
            size -= len(piece)
            self._left -= len(piece)
            yield piece

    async def _more(self) -> bool:
        async for piece in self._source:
            if piece:
                self._buffer = io.BytesIO(piece)
                self._left = len(piece)
                return True
        return False


def _size(header: bytes) -> int:
    try:
        return tarfile.nti(header[124:136])  # type: ignore[attr-defined, no-any-return]
    except tarfile.HeaderError as error:
        raise SourceRejected(f"the checkout's archive is broken: {error}") from error


def _short_path(header: bytes) -> str:
    name, prefix = (header[start:end].split(b"\0", 1)[0] for start, end in ((0, 100), (345, 500)))
    is_ustar = header[257:263] == b"ustar\0"
    return (prefix + b"/" + name if prefix and is_ustar else name).decode(errors="surrogateescape")


def _long_path(kind: bytes, data: bytes) -> str | None:
    if kind == b"L":
        return data.rstrip(b"\0").decode(errors="surrogateescape")
    if kind != b"x":
        return None
    while data:
        length, _, _ = data.partition(b" ")
        record, data = data[: int(length)], data[int(length) :]
        key, _, value = record[len(length) + 1 : -1].partition(b"=")
        if key == b"path":
            return value.decode(errors="surrogateescape")
    return None


def _clean(path: str) -> str:
    return path.removeprefix("./").rstrip("/")
