"""The tar of a small checkout is that of `git archive`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from paasd.source import git
from paasd.source.checkout import GitCheckout, open_checkout
from paasd.source.small_archive import MAX_BYTES, small_archive
from tests.box import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path)
    repository.git("init", "-q", "-b", "main")
    repository.git("config", "tar.umask", "0022")
    return repository


def small(checkout: GitCheckout, prefix: str = "") -> bytes | None:
    return small_archive(checkout.entries, checkout._cache, prefix, checkout.committed_at)


def facts(data: bytes) -> dict[str, object]:
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return {
            entry.name: (entry.type, entry.mode, entry.mtime, entry.uid, entry.gid, entry.uname, content(tar, entry))
            for entry in tar
        }


def content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    return file.read() if file else b""


@pytest.mark.parametrize("prefix", ["", "app/"])
async def test_it_has_the_entries_of_git_archive(repository: Repository, prefix: str) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    long = f"{'folder/' * 20}{'n' * 120}"
    files = {"a": "1", "empty": "", "bin/run": "#!/bin/sh\n", long: "2", "-o": "3", "new\nline": "4", "ü/ö": "5" * 600}
    repository.commit(files)
    (repository.path / name).write_text("latin")
    (repository.path / "bin/run").chmod(0o755)
    revision = repository.commit({})
    checkout = await open_checkout(repository.path / ".git", revision)
    made = small(checkout, prefix)
    assert made is not None
    options = [f"--prefix={prefix}"] if prefix else []
    wanted = facts(await git.run(repository.path, "archive", "--format=tar", *options, revision))
    assert facts(made) == wanted and len(wanted) >= len(files) + 1
    assert b"".join([piece async for piece in checkout.tar(prefix)]) == made


async def test_a_folder_of_it(repository: Repository) -> None:
    revision = repository.commit({"web/index.html": "<p>", "web/a/b": "1", "other": "2"})
    made = small((await open_checkout(repository.path / ".git", revision)).under("web"), "app/")
    assert made is not None and list(facts(made)) == ["app", "app/a", "app/a/b", "app/index.html"]


async def test_what_is_large_or_has_links_is_left_to_git(repository: Repository) -> None:
    text = "x" * (MAX_BYTES // 8)
    checkout = await open_checkout(repository.path, repository.commit({f"f{n}": f"{n}{text}" for n in range(8)}))
    assert small(checkout) is None
    (repository.path / "link").symlink_to("f0")
    for number in range(8):
        (repository.path / f"f{number}").write_text("x")
    checkout = await open_checkout(repository.path, repository.commit({}))
    assert small(checkout) is None
    names = facts(b"".join([piece async for piece in checkout.tar()]))
    assert "link" in names and "f7" in names
