"""Archives for volumes: hostile ones are refused as a whole, the others written anew."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from paasd.errors import InvalidInput
from paasd.volume_tar import check, cleaned, rebased

MIB = 1024**2


def tar(*entries: tarfile.TarInfo | tuple[str, bytes], mode: Any = "w", format: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format, errors="surrogateescape") as archive:
        for entry in entries:
            if isinstance(entry, tuple):
                made = tarfile.TarInfo(entry[0])
                made.size, made.mode = len(entry[1]), 0o6755
                archive.addfile(made, io.BytesIO(entry[1]))
            else:
                archive.addfile(entry)
    return buffer


def member(name: str, type: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = type, link, size
    return entry


def unpacked(pieces: Any) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {entry.name: entry for entry in archive}


LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("../x", b"")], "leaves its folder"),
        ([("a/../../x", b"")], "leaves its folder"),
        ([("/etc/passwd", b"")], "no relative path"),
        ([(".//etc", b""), ("a//b", b"")], "no path at all"),
        ([member("x", LINK, "/etc")], "outside of the archive"),
        ([member("a/x", LINK, "../../etc")], "outside of the archive"),
        ([member("x", LINK, "a"), ("x/y", b"")], "no directory"),
        ([("x", b""), ("x/y", b"")], "no directory"),
        ([member("x", HARD, "/etc/shadow")], "hard link"),
        ([member("x", HARD, "../y")], "hard link"),
        ([member("x", HARD, "later"), ("later", b"")], "hard link"),
        ([member("x", tarfile.FIFOTYPE)], "device, pipe or socket"),
        ([member("x", tarfile.CHRTYPE)], "device, pipe or socket"),
        ([member("x", tarfile.BLKTYPE)], "device, pipe or socket"),
        ([("x", b"1"), ("./x", b"2")], "twice"),
        ([("n" * 300, b"")], "too long"),
        (["/".join(["n" * 200] * 25)], "too long"),
        ([("caf\udce9", b"")], "not UTF-8"),
    ],
)
def test_what_must_not_be_unpacked(entries: list[Any], said: str) -> None:
    listed = [(entry, b"") if isinstance(entry, str) else entry for entry in entries]
    with pytest.raises(InvalidInput, match=said):
        check(tar(("good", b"1"), *listed), MIB)


def sparse() -> io.BytesIO:
    entry = member("big", tarfile.GNUTYPE_SPARSE, size=0)
    return io.BytesIO(entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)


def pax_sparse() -> io.BytesIO:
    entry = tarfile.TarInfo("big")
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10 * 1024**3)}
    return tar(entry)


def long_header() -> io.BytesIO:
    entry = member("name", tarfile.XHDTYPE, size=10 * 1024**3)
    return io.BytesIO(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + b"x" * MIB))


def global_headers() -> io.BytesIO:
    entry = member("name", tarfile.XGLTYPE, size=0)
    return io.BytesIO(entry.tobuf(tarfile.GNU_FORMAT) * 100 + b"\0" * 1024)


def chained_headers() -> io.BytesIO:
    entry = member("name", tarfile.XHDTYPE, size=0)
    return io.BytesIO(entry.tobuf(tarfile.GNU_FORMAT) * 5000 + b"\0" * 1024)


def bomb() -> io.BytesIO:
    return tar(("zeros", bytes(64 * MIB)), mode="w:gz")


def cut() -> io.BytesIO:
    return io.BytesIO(tar(("a", b"1" * 5000), ("b", b"2")).getvalue()[:2048])


def cut_between() -> io.BytesIO:
    return io.BytesIO(tar(("a", b"1" * 512), ("b", b"2")).getvalue()[:1024])


def cut_gzip() -> io.BytesIO:
    return io.BytesIO(tar(("a", os.urandom(5000)), mode="w:gz").getvalue()[:3000])


def nothing() -> io.BytesIO:
    return io.BytesIO()


def no_archive() -> io.BytesIO:
    return io.BytesIO(b"hello" * 1000)


def xz() -> io.BytesIO:
    return tar(("a", b"1"), mode="w:xz")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (sparse, "sparse"),
        (pax_sparse, "sparse"),
        (long_header, "header that is too long"),
        (global_headers, "global headers"),
        (chained_headers, "cannot be read"),
        (bomb, "unpacks to more than the 1 MiB"),
        (cut, "cannot be read|ends too early"),
        (cut_between, "ends too early"),
        (cut_gzip, "cannot be read|ends too early"),
        (nothing, "cannot be read|ends too early"),
        (no_archive, "cannot be read"),
        (xz, "cannot be read"),
        (tar, "no files"),
    ],
)
def test_archives_that_are_refused_as_a_whole(made: Callable[[], io.BytesIO], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        check(made(), MIB)


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paasd.volume_tar.MAX_MEMBERS", 10)
    check(tar(*((f"f{n}", b"") for n in range(10))), MIB)
    with pytest.raises(InvalidInput, match="more than 10 files"):
        check(tar(*((f"f{n}", b"") for n in range(11))), MIB)
    monkeypatch.setattr("paasd.volume_tar._MAX_NAMES", 10)
    with pytest.raises(InvalidInput, match="files"):
        check(tar(("a" * 50, b"")), MIB)


def test_members_that_name_nothing_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paasd.volume_tar.MAX_MEMBERS", 10)
    with pytest.raises(InvalidInput, match="more than 10 files"):
        check(tar(("file", b"1"), *(member("./", FOLDER) for _ in range(10))), MIB)
    with pytest.raises(InvalidInput, match="no directory"):
        check(tar(("file", b"1"), member(".", tarfile.REGTYPE)), MIB)


@pytest.mark.parametrize("size", [-1, -511])
def test_negative_sizes_are_refused(size: int) -> None:
    entry = member("x", tarfile.REGTYPE)
    entry.pax_headers = {"size": str(size)}
    with pytest.raises(InvalidInput, match="negative size"):
        check(tar(("file", b"1"), entry), MIB)


def test_reading_ends_soon_after_the_file_is_closed() -> None:
    """What frees the thread when an import runs out of time: it cannot be cancelled itself."""
    archive = tar(("random", os.urandom(100_000)), ("end", b""), mode="w:gz")

    class Closing(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            if self.reads == 4:
                self.close()
            return super().read(size)

    with pytest.raises(InvalidInput, match="closed file"):
        check(Closing(archive.getvalue()), MIB)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_is_good_is_written_anew_for_its_owner(mode: str, format: int) -> None:
    long = "/".join(["folder"] * 12) + "/file"
    entries = [
        *(member("./", FOLDER), member("a", FOLDER), member("a", FOLDER), ("a/one", b"1" * 700)),
        *(member("a/link", LINK, "../b"), ("./b", b"2"), member("c", HARD, "./b"), (long, b"3")),
    ]
    archive = tar(*entries, mode=mode, format=format)
    found = check(archive, 702)
    assert (found.files, found.size) == (7, 702)
    written = unpacked(cleaned(archive, "volume/x", (1000, 1001), ["volume/x"]))
    names = ["volume/x", "volume/x/a", "volume/x/a/one", "volume/x/a/link", "volume/x/b", "volume/x/c"]
    assert sorted(written) == sorted([*names, f"volume/x/{long}"])
    assert {(entry.uid, entry.gid) for entry in written.values()} == {(1000, 1001)}
    assert written["volume/x/a/one"].mode == 0o755, "nothing runs as somebody else"
    assert written["volume/x/a/link"].linkname == "../b"
    assert written["volume/x/c"].islnk() and written["volume/x/c"].linkname == "volume/x/b"
    with tarfile.open(fileobj=io.BytesIO(b"".join(cleaned(archive, "volume/x", (0, 0))))) as made:
        content = made.extractfile(f"volume/x/{long}")
        assert content is not None and content.read() == b"3"
    with pytest.raises(InvalidInput, match="more than"):
        check(archive, 701)


def test_what_comes_out_has_names_of_its_own_folder() -> None:
    archive = tar(
        *(member("volume", FOLDER), ("volume/a/" + "n" * 150, b"1" * 600), member("volume/l", LINK, "/anywhere")),
        *(("volume/b", b"2"), member("volume/h", HARD, "volume/b"), member("volume/p", tarfile.FIFOTYPE)),
    )
    archive.seek(0)
    found = unpacked(rebased(archive, 1))
    assert list(found) == [".", "a/" + "n" * 150, "l", "b", "h", "p"]
    assert (found["l"].linkname, found["h"].linkname) == ("/anywhere", "b")
    archive.seek(0)
    assert "volume/b" in unpacked(rebased(archive, 0))
