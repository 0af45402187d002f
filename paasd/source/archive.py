"""Turns files that did not come with Git into a commit: archives that users send, and single files of ours.

An archive is read twice: once to judge every member, and only when all are right a second time to store them. Nothing
is ever unpacked to disk; the files go straight into Git's object store with git-fast-import(1).
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from paasd.errors import PaasdError, SourceRejected
from paasd.names import shown
from paasd.source import git

MAX_FILES = 300_000
MAX_BYTES = 8 * 1024**3
_MAX_PATH = 4096
_MAX_LINK = 4096
_REGULAR, _EXECUTABLE, _LINK = "100644", "100755", "120000"
_CHUNK = 1024 * 1024
_TIMEOUT = 600
_WHO = "paasd <paasd@localhost>"


@dataclass(frozen=True)
class Member:
    """One file or link of an archive."""

    path: str
    mode: str
    size: int
    open: Callable[[], IO[bytes]]
    """Its content; for a link what it points to."""


def check_archive(path: Path) -> str:
    """Judge every member. Returns the folder that holds everything else, empty when there is none. Raises
    SourceRejected naming the first member that is wrong."""
    seen: set[str] = set()
    total = 0
    for member in _members(path):
        _check_path(member.path)
        if member.path.lower() in seen:
            raise SourceRejected(f"the archive holds {shown(member.path)} twice", hint="Make the archive anew.")
        seen.add(member.path.lower())
        if len(seen) > MAX_FILES:
            raise SourceRejected(f"the archive holds more than {MAX_FILES} files", hint="Leave out what is generated.")
        total += member.size
        if total > MAX_BYTES:
            raise SourceRejected(f"the archive unpacks to more than {MAX_BYTES / 1024**3:.0f} GiB")
        if member.mode == _LINK:
            _check_link(member)
    if not seen:
        raise SourceRejected("the archive holds no files", hint="Send one made with: tar -czf app.tar.gz -C FOLDER .")
    tops = {name.partition("/")[0] for name in seen}
    # What GitHub and others offer has one folder around everything.
    return tops.pop() if len(tops) == 1 and all("/" in name for name in seen) else ""


def commit_archive(repository: Path, archive: Path, folder: str, message: str, parent: str | None) -> str:
    """Store the members below `folder` as a commit and return its id. Blocks. Call `check_archive` first."""
    skip = len(folder) + 1 if folder else 0
    members = (Member(m.path[skip:], m.mode, m.size, m.open) for m in _members(archive))
    return _commit(repository, members, message, parent)


def commit_files(repository: Path, files: Mapping[str, str], message: str, parent: str | None) -> str:
    """Store small files of ours as a commit and return its id. Blocks."""
    members = (_member(path, text.encode()) for path, text in files.items())
    return _commit(repository, members, message, parent)


def _member(path: str, data: bytes) -> Member:
    return Member(path, _REGULAR, len(data), lambda: io.BytesIO(data))


def _members(path: Path) -> Iterator[Member]:
    try:
        if zipfile.is_zipfile(path):
            yield from _zip_members(path)
        else:
            yield from _tar_members(path)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        raise SourceRejected(
            f"the archive cannot be read: {error}", hint="Send a tar, a tar.gz (bz2, xz) or a zip file."
        ) from error


def _tar_members(path: Path) -> Iterator[Member]:
    # A sparse member claims a size of its own, so that the sum of sizes bounds what is read.
    with tarfile.open(path, "r:*", errorlevel=2) as archive:
        for entry in archive:
            name = _clean(entry.name)
            if entry.isdir():
                if name:
                    _check_path(name)
            elif entry.issym():
                target = entry.linkname.encode("utf-8", "surrogateescape")
                yield Member(name, _LINK, len(target), lambda target=target: io.BytesIO(target))  # type: ignore[misc]
            elif entry.isreg():
                mode = _EXECUTABLE if entry.mode & 0o100 else _REGULAR
                yield Member(name, mode, entry.size, lambda entry=entry: _opened(archive, entry))  # type: ignore[misc]
            else:
                kind = "a hard link" if entry.islnk() else "a device, pipe or socket"
                raise SourceRejected(
                    f"the archive holds {kind}: {shown(entry.name)}", hint="Only files, folders and symbolic links."
                )


def _opened(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(entry)
    assert found is not None
    return found


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name, kind = _clean(entry.filename), (entry.external_attr >> 16) & 0o170000
            if entry.is_dir():
                if name:
                    _check_path(name)
                continue
            if kind not in (0, 0o100000, 0o120000):
                raise SourceRejected(f"the archive holds a device, pipe or socket: {shown(entry.filename)}")
            mode = _EXECUTABLE if (entry.external_attr >> 16) & 0o100 else _REGULAR
            mode = _LINK if kind == 0o120000 else mode
            yield Member(name, mode, entry.file_size, lambda entry=entry: archive.open(entry))  # type: ignore[misc]


def _clean(path: str) -> str:
    while path.startswith("./"):
        path = path[2:]
    return path.rstrip("/") if path != "." else ""


def _check_path(path: str) -> None:
    """Raises SourceRejected for what would leave the tree, or what Git would take for its own."""
    parts = path.split("/")
    wrong = ""
    if path.startswith("/") or "\\" in path or "\0" in path:
        wrong = "is not a plain relative path"
    elif ".." in parts or "." in parts or "" in parts:
        wrong = "leaves its folder or is no path at all"
    elif len(path.encode("utf-8", "surrogateescape")) > _MAX_PATH:
        wrong = f"is longer than {_MAX_PATH} bytes"
    elif any(part.lower().rstrip(". ") == ".git" or part.lower().startswith("git~") for part in parts):
        wrong = "is Git's own"
    if wrong:
        raise SourceRejected(
            f"the archive's member {shown(path)} {wrong}",
            hint="Make the archive anew: git archive --format=tar.gz HEAD",
        )


def _check_link(member: Member) -> None:
    if member.size > _MAX_LINK:
        raise SourceRejected(f"the symbolic link {shown(member.path)} has a target of {member.size} bytes")
    with closing(member.open()) as opened:
        target = opened.read(_MAX_LINK).decode("utf-8", "surrogateescape")
    depth = len(PurePosixPath(member.path).parent.parts)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or target.startswith("/"):
            raise SourceRejected(
                f"the symbolic link {shown(member.path)} points outside the archive (to {shown(target)})",
                hint="Replace it by the file itself, or by a relative link inside.",
            )


def _commit(repository: Path, members: Iterable[Member], message: str, parent: str | None) -> str:
    command = [git.GIT, "-C", str(repository), "fast-import", "--quiet", "--done", "--date-format=now"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=git.environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            with process.stdin as stream:
                _write_commit(stream, members, message, parent)
            commit = process.stdout.read(200).decode().strip()
            complaint = process.stderr.read(2000).decode(errors="backslashreplace").strip()
            if process.wait(_TIMEOUT) or not commit:
                raise PaasdError(f"git fast-import failed: {complaint}")
            return commit
        except BaseException:
            process.kill()
            raise


def _write_commit(stream: IO[bytes], members: Iterable[Member], message: str, parent: str | None) -> None:
    text = message.encode()
    stream.write(b"commit refs/heads/import\nmark :1\ncommitter %s now\n" % _WHO.encode())
    stream.write(b"data %d\n%s\n" % (len(text), text))
    if parent:
        stream.write(f"from {parent}\n".encode())
    stream.write(b"deleteall\n")
    for member in members:
        stream.write(b"M %s inline %s\n" % (member.mode.encode(), _quoted(member.path)))
        _write_data(stream, member)
    stream.write(b"\nget-mark :1\ndone\n")


def _write_data(stream: IO[bytes], member: Member) -> None:
    """Exactly as many bytes as were announced, whatever the archive then gives."""
    stream.write(b"data %d\n" % member.size)
    left = member.size
    with closing(member.open()) as opened:
        while left and (piece := opened.read(min(left, _CHUNK))):
            stream.write(piece)
            left -= len(piece)
    if left:
        raise SourceRejected(f"the archive ends in the middle of {shown(member.path)}", hint="Send it again.")
    stream.write(b"\n")


def _quoted(path: str) -> bytes:
    """As git-fast-import(1) wants paths with unusual characters."""
    out = bytearray(b'"')
    for byte in path.encode("utf-8", "surrogateescape"):
        out += b"\\%03o" % byte if byte < 0x20 or byte >= 0x7F or byte in b'"\\' else bytes([byte])
    return bytes(out + b'"')
