"""Tar files that go into volumes and come out of them. Pure and blocking: callers run it in threads.

What users send is read twice: once to judge every member, and only when all are right a second time, to be written anew
with nothing of the sender's but names, contents, times and who may read.
"""

from __future__ import annotations

import io
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any

from paasd.errors import InvalidInput
from paasd.names import shown

MAX_MEMBERS = 300_000
_MAX_NAMES = 64 * 1024**2
"""Bytes of all names together, which are held in memory."""
_MAX_GLOBAL = 16
_MAX_PATH, _MAX_PART, _MAX_HEADER = 4096, 255, 64 * 1024
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_HINT = "Nothing was written. Make it anew, for example with: tar -C FOLDER -czf - ."
Owner = tuple[int, int]
"""uid and gid."""


@dataclass
class Contents:
    """What an archive unpacks to."""

    files: int = 0
    size: int = 0
    _kinds: dict[str, bytes] = field(default_factory=dict)
    _names: int = 0
    _members: int = 0
    """Those that name nothing but the folder itself included: reading them takes as long."""

    def take(self, entry: tarfile.TarInfo, most: float) -> None:
        """Raises InvalidInput for a member that must not be unpacked."""
        path = clean(entry.name)
        self._members += 1
        if path:
            self._take_named(path, entry)
        elif not entry.isdir():
            raise _wrong(entry.name, "is the folder itself, but no directory")
        if self._members > MAX_MEMBERS or self._names > _MAX_NAMES:
            raise InvalidInput(f"the archive holds more than {MAX_MEMBERS} files", hint="Send it in several pieces.")
        if self.size > most:
            raise InvalidInput(
                f"the archive unpacks to more than the {max(0, most) / 1024**2:.0f} MiB that there is room for",
                hint="What bounds it: storage:info, quota:report, and the free space of the disk.",
            )

    def _take_named(self, path: str, entry: tarfile.TarInfo) -> None:
        _check_path(path)
        if path in self._kinds and not (entry.isdir() and self._kinds[path] == tarfile.DIRTYPE):
            raise _wrong(path, "is there twice")
        if entry.size < 0:
            raise _wrong(path, "has a negative size")
        self._check_kind(path, entry)
        self._kinds[path] = tarfile.DIRTYPE if entry.isdir() else entry.type
        self.files += 1
        self.size += entry.size if entry.isreg() else 0
        self._names += len(path)

    def _check_kind(self, path: str, entry: tarfile.TarInfo) -> None:
        for parent in PurePosixPath(path).parents:
            if self._kinds.get(str(parent), tarfile.DIRTYPE) != tarfile.DIRTYPE:
                raise _wrong(path, f"lies in {shown(str(parent))}, which is no directory")
        if entry.issym():
            _check_link(path, entry.linkname)
        elif entry.islnk():
            if self._kinds.get(clean(entry.linkname)) not in tarfile.REGULAR_TYPES:
                raise _wrong(path, "is a hard link to what is no file of the archive before it")
        elif not (entry.isreg() or entry.isdir()):
            raise _wrong(path, "is a device, pipe or socket")


def check(file: IO[bytes], most: float) -> Contents:
    """Judge every member of a tar or tar.gz that unpacks to at most so many bytes. Raises InvalidInput naming the first
    that is wrong."""
    found, ended = Contents(), _EndSeen()
    for entry, _ in _members(file, ended):
        found.take(entry, most)
    if not ended.seen:
        raise InvalidInput("the archive ends too early", hint="Nothing was written. Send it again.")
    if not found.files:
        raise InvalidInput("the archive holds no files", hint=_HINT)
    return found


def cleaned(file: IO[bytes], folder: str, owner: Owner, missing: Sequence[str] = ()) -> Iterator[bytes]:
    """The members of a checked archive below `folder`, all of `owner`, as a tar.

    `missing` are the directories on the way that are to be made, `folder` perhaps among them. Those that exist must not
    be in the tar: the engine would change their mode, owner and time.
    """
    for part in missing:
        made = _entry(part, tarfile.DIRTYPE, 0o755, owner)
        made.mtime = int(time.time())
        yield _header(made)
    for entry, content in _members(file, _EndSeen()):
        if not (path := clean(entry.name)):
            continue
        kind = tarfile.REGTYPE if entry.isreg() else entry.type
        made = _entry(f"{folder}/{path}", kind, entry.mode & 0o777, owner)
        made.mtime, made.size = max(0, int(entry.mtime)), entry.size if entry.isreg() else 0
        made.linkname = f"{folder}/{clean(entry.linkname)}" if entry.islnk() else entry.linkname
        yield _header(made)
        if entry.isreg():
            yield from _padded(content(), entry)
    yield _END


def rebased(source: IO[bytes], drop: int) -> Iterator[bytes]:
    """A tar of the engine's without the first `drop` parts of all names."""
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for entry in archive:
            entry.name = _without(entry.name, drop)
            entry.linkname = _without(entry.linkname, drop) if entry.islnk() else entry.linkname
            entry.pax_headers = {k: v for k, v in entry.pax_headers.items() if k.startswith("SCHILY.xattr.")}
            yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if entry.isreg():
                content = archive.extractfile(entry)
                assert content is not None
                yield from _padded(content, entry)
            archive.members = []  # type: ignore[attr-defined]  # it would keep all
    yield _END


def first_entry(data: bytes) -> tarfile.TarInfo:
    """Of the beginning of a tar. Raises tarfile.TarError."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        entry = archive.next()
    if entry is None:
        raise tarfile.ReadError("an empty archive")
    return entry


def clean(path: str) -> str:
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path.rstrip("/") if path != "." else ""


class _EndSeen:
    seen = False
    global_headers = 0


def _members(file: IO[bytes], ended: _EndSeen) -> Iterator[tuple[tarfile.TarInfo, Callable[[], IO[bytes]]]]:
    """Each member with its content, to be read before the next one is asked for."""
    file.seek(0)
    mode = "r|gz" if file.read(2) == _GZIP else "r|"
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode=mode, errorlevel=2, tarinfo=_careful(ended)) as archive:  # type: ignore[call-overload]
            for entry in archive:
                yield entry, lambda entry=entry: _content(archive, entry)  # type: ignore[misc]
                archive.members = []  # it would keep all
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, zlib.error) as error:
        raise InvalidInput(f"the archive cannot be read: {error}", hint="Send a tar or a tar.gz.") from error


def _careful(ended: _EndSeen) -> type[tarfile.TarInfo]:
    """A parser of headers that keeps none in memory that is larger than any header must be, and notices the end."""

    class Careful(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Any:
            try:
                return super().frombuf(buf, encoding, errors)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                ended.seen = True
                raise

        def _proc_member(self, archive: Any) -> Any:
            extends = self.type in (*_EXTENSIONS, tarfile.GNUTYPE_LONGLINK)
            if extends and self.size > _MAX_HEADER:
                raise InvalidInput("the archive has a header that is too long", hint=_HINT)
            ended.global_headers += self.type == tarfile.XGLTYPE
            if ended.global_headers > _MAX_GLOBAL:
                raise InvalidInput("the archive has too many global headers", hint=_HINT)
            if self.type == tarfile.GNUTYPE_SPARSE:
                raise _wrong(self.name, "is a sparse file, which is written otherwise (tar without -S)")
            return super()._proc_member(archive)  # type: ignore[misc]

        def _proc_gnusparse_10(self, *_: Any) -> None:
            raise _wrong(self.name, "is a sparse file, which is written otherwise (tar without -S)")

        _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10

    return Careful


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(entry)
    assert found is not None
    return found


def _padded(content: IO[bytes], entry: tarfile.TarInfo) -> Iterator[bytes]:
    """Exactly as many bytes as the header says, filled up to whole blocks."""
    left = entry.size
    while left:
        piece = content.read(min(left, _CHUNK))
        if not piece:
            raise InvalidInput(f"the archive ends in the middle of {shown(entry.name)}", hint="Send it again.")
        left -= len(piece)
        yield piece
    if rest := -entry.size % tarfile.BLOCKSIZE:
        yield b"\0" * rest


def _check_path(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\0" in path:
        raise _wrong(path, "is no relative path")
    if {"..", ".", ""} & set(parts):
        raise _wrong(path, "leaves its folder or is no path at all")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise _wrong(path, "has a name that is not UTF-8") from None
    if len(encoded) > _MAX_PATH or any(len(part.encode()) > _MAX_PART for part in parts):
        raise _wrong(path, "has a name that is too long")


def _check_link(path: str, target: str) -> None:
    depth = len(PurePosixPath(path).parent.parts)
    if target.startswith("/") or not target or "\0" in target or len(target) > _MAX_PATH:
        raise _wrong(path, f"is a link to {shown(target)}, outside of the archive")
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise _wrong(path, f"is a link to {shown(target)}, outside of the archive")


def _wrong(path: str, what: str) -> InvalidInput:
    return InvalidInput(f"the archive's member {shown(path)} {what}", hint=_HINT)


def _without(path: str, drop: int) -> str:
    return "/".join(path.rstrip("/").split("/")[drop:]) or "."


def _entry(path: str, kind: bytes, mode: int, owner: Owner) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, (entry.uid, entry.gid) = kind, mode, owner
    return entry


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


_END = b"\0" * (2 * tarfile.BLOCKSIZE)
