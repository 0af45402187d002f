"""What a small push may not do to the daemon: name millions of paths, unpack to terabytes, hide among many files."""

from __future__ import annotations

import io
import os
import resource
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from paasd.config import Config
from paasd.errors import PaasdError, SourceRejected
from paasd.models import App, RefUpdate
from paasd.source import git
from paasd.source.checkout import open_checkout
from paasd.source.repositories import Repositories
from paasd.source.tree import MAX_LINK
from tests.box import Repository

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
APP = App("0123456789", "org", "project", "blog", "blog", "production", None, None, None, False, {}, 0.0)
NOTHING = "0" * 40


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "work")
    repository.path.mkdir()
    repository.git("init", "-q", "-b", "main")
    return repository


def blob(repository: Repository, content: bytes) -> str:
    return repository.git("hash-object", "-w", "--stdin", stdin=content)


def tree(repository: Repository, entries: Sequence[tuple[str, str, str]]) -> str:
    """Of (mode, object, name)."""
    kinds = {"040000": "tree", "160000": "commit"}
    lines = [f"{mode} {kinds.get(mode, 'blob')} {oid}\t{name}" for mode, oid, name in entries]
    return repository.git("mktree", "-z", stdin="\0".join([*lines, ""]).encode())


def commit(repository: Repository, root: str) -> str:
    return repository.git("commit-tree", root, "-m", "x")


def nested(repository: Repository, leaf: tuple[str, str, str], width: int, depth: int) -> str:
    """A tree of `width` times itself, `depth` times over: its objects are few, its paths are width ** depth."""
    root = tree(repository, [leaf])
    for _ in range(depth):
        root = tree(repository, [("040000", root, f"d{i}") for i in range(width)])
    return commit(repository, root)


@pytest.mark.parametrize("empty", [False, True], ids=["files", "folders only"])
async def test_a_tree_bomb_is_refused_in_bounded_memory(repository: Repository, empty: bool) -> None:
    leaf = ("040000", tree(repository, []), "d") if empty else ("100644", blob(repository, b"x"), "f")
    revision = nested(repository, leaf, 20, 10)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(SourceRejected, match="more than 300000 files and folders"):
        await open_checkout(repository.path, revision)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"{grown} KiB for {20**10} paths in {time.monotonic() - started:.1f} s"


async def test_many_long_paths_are_refused(repository: Repository) -> None:
    leaf = ("100644", blob(repository, b"x"), "f" * 200)
    root = tree(repository, [leaf])
    for _ in range(12):
        root = tree(repository, [("040000", root, f"{i}{'d' * 250}") for i in (1, 2, 3)])
    with pytest.raises(SourceRejected, match="too long altogether"):
        await open_checkout(repository.path, commit(repository, root))
    for _ in range(20):
        root = tree(repository, [("040000", root, "d" * 250)])
    with pytest.raises(SourceRejected, match="is too long"):
        await open_checkout(repository.path, commit(repository, root))


async def test_what_unpacks_to_more_than_the_limit_is_refused(repository: Repository) -> None:
    """9 GiB in one mebibyte of zeros, named 9216 times."""
    content = blob(repository, bytes(1024**2))
    folder = tree(repository, [("100644", content, f"f{i}") for i in range(96)])
    root = tree(repository, [("040000", folder, f"d{i}") for i in range(96)])
    with pytest.raises(SourceRejected, match="unpacks to more than 8 GiB"):
        await open_checkout(repository.path, commit(repository, root))
    small = tree(repository, [("040000", folder, f"d{i}") for i in range(80)])
    assert len((await open_checkout(repository.path, commit(repository, small))).files) == 80 * 96


async def test_a_link_with_a_long_target_is_refused(repository: Repository) -> None:
    for length, fine in ((MAX_LINK, True), (MAX_LINK + 1, False)):
        target = ("a/" * length)[:length]
        root = tree(repository, [("120000", blob(repository, target.encode()), "link")])
        if fine:
            assert (await open_checkout(repository.path, commit(repository, root))).files == {"link"}
        else:
            with pytest.raises(SourceRejected, match=f"'link' has a target of {length} bytes"):
                await open_checkout(repository.path, commit(repository, root))


async def test_a_tag_object_is_not_a_commit(repository: Repository) -> None:
    repository.commit({"index.html": "x"})
    repository.git("tag", "-a", "v1", "-m", "one")
    with pytest.raises(SourceRejected, match="tag object"):
        await open_checkout(repository.path, repository.git("rev-parse", "v1"))


async def test_a_pointer_among_thousands_of_small_files_is_found(repository: Repository) -> None:
    different = "".join(f"blob\nmark :{i}\ndata 150\n{i:0150}\n" for i in range(1, 3001))
    marks = repository.path / "marks"
    repository.git("fast-import", "--quiet", f"--export-marks={marks}", stdin=different.encode())
    names = [("100644", line.split()[1], f"f{i:04}") for i, line in enumerate(marks.read_text().splitlines())]
    clean = commit(repository, tree(repository, names))
    assert len((await open_checkout(repository.path, clean)).files) == 3000
    hidden = tree(repository, [*names, ("100644", blob(repository, POINTER.encode()), "zz.bin")])
    with pytest.raises(SourceRejected, match=r"'zz\.bin' is a Git LFS pointer"):
        await open_checkout(repository.path, commit(repository, hidden))


async def test_every_link_of_many_is_looked_at(repository: Repository) -> None:
    inside = blob(repository, b"f")
    names = [("120000", inside, f"l{i:04}") for i in range(3000)]
    outside = tree(repository, [("120000", blob(repository, b"../../x"), "bad")])
    with pytest.raises(SourceRejected, match="'z/bad' points outside"):
        await open_checkout(repository.path, commit(repository, tree(repository, [*names, ("040000", outside, "z")])))
    # The same target is fine deeper inside and bad further out.
    deep = tree(repository, [("040000", outside, "y")])
    assert (await open_checkout(repository.path, commit(repository, tree(repository, [("040000", deep, "x")])))).files


@pytest.fixture
async def repositories(tmp_path: Path) -> Repositories:
    made = Repositories(Config(tmp_path / "data"))
    await made.prepare()
    (tmp_path / "data" / "hooks" / "pre-receive").unlink()  # nobody would answer it
    return made


async def test_attributes_of_the_repository_change_nothing(repositories: Repositories, repository: Repository) -> None:
    attributes = (
        "left-out export-ignore\nstamp export-subst\n*.txt text eol=crlf\nid ident\nwide working-tree-encoding=UTF-16\n"
        "[attr]evil text eol=crlf -export-ignore\nodd.bin evil\nlower/* filter=x\n"
    )
    files = {
        ".gitattributes": attributes,
        "left-out": "kept",
        "stamp": "$Format:%H$",
        "a.txt": "one\ntwo\n",
        "id": "$Id$",
        "wide": "text\n",
        "odd.bin": "a\nb\n",
        "lower/.gitattributes": "* text eol=crlf\n",
        "lower/f": "a\nb\n",
    }
    objects = {name: blob(repository, text.encode()) for name, text in files.items()}
    lower = tree(repository, [("100644", objects[f"lower/{name}"], name) for name in (".gitattributes", "f")])
    flat = [("100644", oid, name) for name, oid in objects.items() if "/" not in name]
    revision = commit(repository, tree(repository, [*flat, ("040000", lower, "lower")]))
    bare = await repositories.ensure(APP)
    repository.git("push", "-q", str(bare), f"{revision}:refs/tags/x")
    data = b"".join([piece async for piece in (await open_checkout(bare, revision)).tar()])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {m.name: archive.extractfile(m).read().decode() for m in archive if m.isfile()}  # type: ignore[union-attr]
    assert found == files


class TestRehearsal:
    """What git would refuse after the hook is refused before it, and nothing of the trial stays."""

    @pytest.fixture
    async def bare(self, repositories: Repositories, repository: Repository) -> Path:
        bare = await repositories.ensure(APP)
        repository.commit({"index.html": "x"})
        for name in ("refs/heads/main", "refs/heads/old/x", "refs/tags/v1"):
            await git.run(repository.path, "push", "-q", str(bare), f"HEAD:{name}")
        return bare

    async def test_what_git_accepts(self, repositories: Repositories, bare: Path) -> None:
        new = (await repositories.refs(APP))["refs/heads/main"]
        before = sorted(str(path) for path in bare.rglob("*"))
        updates = [RefUpdate(NOTHING, new, "refs/heads/new"), RefUpdate(new, NOTHING, "refs/tags/v1")]
        await repositories.rehearse(APP, updates, {})
        assert sorted(str(path) for path in bare.rglob("*")) == before

    @pytest.mark.parametrize("ref", ["refs/heads/main/x", "refs/heads/old", "refs/tags/v1/x", "refs/heads/a..b"])
    async def test_names_git_cannot_keep(self, repositories: Repositories, bare: Path, ref: str) -> None:
        new = (await repositories.refs(APP))["refs/heads/main"]
        with pytest.raises(PaasdError, match="git update-ref failed"):
            await repositories.rehearse(APP, [RefUpdate(NOTHING, new, ref)], {})
        assert len(await repositories.refs(APP)) == 3
        assert repositories.locks(APP) == []

    async def test_a_lock_in_the_way(self, repositories: Repositories, bare: Path) -> None:
        new = (await repositories.refs(APP))["refs/heads/main"]
        (bare / "refs" / "heads" / "main.lock").touch()
        with pytest.raises(PaasdError, match="File exists"):
            await repositories.rehearse(APP, [RefUpdate(new, new, "refs/heads/main")], {})


async def test_settings_reach_repositories_that_exist(repositories: Repositories, tmp_path: Path) -> None:
    bare = await repositories.ensure(APP)
    (bare / "config").write_text("[core]\n\tbare = true\n")
    os.unlink(bare / "info" / "attributes")
    await repositories.prepare()
    config = (bare / "config").read_text()
    assert "maxInputSize = 2147483648" in config and "hooksPath" in config
    assert "-export-ignore" in (bare / "info" / "attributes").read_text()


async def test_lockfiles_may_be_larger_than_what_people_write(repository: Repository) -> None:
    lock = "lockfileVersion: '9.0'\n" + "# a package\n" * 300_000
    sizes = {"app/pnpm-lock.yaml": lock, "uv.lock": lock * 5, "requirements.txt": lock}
    checkout = await open_checkout(repository.path, repository.commit(sizes))
    assert checkout.read("app/pnpm-lock.yaml") == lock
    for path, limit in (("uv.lock", 16 * 2**20), ("requirements.txt", 2**20)):
        with pytest.raises(SourceRejected, match=f"'{path}' has .* paasd reads files of at most {limit}"):
            checkout.read(path)
