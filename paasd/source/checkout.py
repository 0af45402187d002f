"""A checkout: one revision of an app's repository, read straight from Git's object store. There is never a work tree,
so nothing in it can run."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from paasd.errors import SourceRejected
from paasd.models import Manifest
from paasd.names import shown
from paasd.source import git
from paasd.source.manifest import read_manifest
from paasd.source.small_archive import small_archive
from paasd.source.tree import SUBMODULE, SYMLINK, Entry, read_objects, read_tree

_PREFETCH_FILES, _PREFETCH_SIZE = 200, 256 * 1024
_PREFETCH_BELOW, _PREFETCH_SIZE_BELOW = 300, 32 * 1024
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_SIZES = range(100, 201)
_MAX_TEXT, _MAX_LOCK = 1024 * 1024, 16 * 1024 * 1024
_LOCKFILES = {"package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "go.sum"}


@dataclass(frozen=True)
class GitCheckout:
    """Implements `models.Checkout`. Made by `open_checkout`."""

    repository: Path
    revision: str
    tree: str
    entries: Mapping[str, Entry]
    env: Mapping[str, str]
    committed_at: int = 0
    """Seconds since 1970: when all its files were last modified."""
    _cache: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def manifest(self) -> Manifest:
        """Raises SourceRejected for a file that is not right."""
        return read_manifest(self.read)

    @cached_property  # a plan asks dozens of times, and a repository may hold many thousands
    def files(self) -> frozenset[str]:
        return frozenset(self.entries)

    def read(self, path: str) -> str | None:
        entry = self.entries.get(path)
        if entry is None or entry.mode in (SYMLINK, SUBMODULE):
            return None
        if entry.size > (limit := _longest(path)):
            raise SourceRejected(
                f"{shown(path)} has {entry.size} bytes; paasd reads files of at most {limit}",
                hint="Files such as Procfile, app.json and requirements.txt are small; this one is something else.",
            )
        if entry.object_id not in self._cache:
            command = [git.GIT, "-C", str(self.repository), "cat-file", "blob", entry.object_id]
            done = subprocess.run(command, env=git.environment(self.env), capture_output=True, timeout=30, check=True)
            self._cache[entry.object_id] = done.stdout
        return self._cache[entry.object_id].decode("utf-8", errors="replace").removeprefix("\ufeff")

    def under(self, folder: str) -> GitCheckout:
        """The same revision as if `folder` were its root. Raises SourceRejected when it holds no files."""
        start = f"{folder}/"
        entries = {path.removeprefix(start): entry for path, entry in self.entries.items() if path.startswith(start)}
        if not entries:
            raise SourceRejected(
                f"root-dir is {shown(folder)}, but the pushed commit holds no files there",
                hint="Mend it with: builds:set APP root-dir FOLDER",
            )
        revision = f"{self.revision}:{folder}"
        command = [git.GIT, "-C", str(self.repository), "rev-parse", "--verify", revision]
        done = subprocess.run(command, env=git.environment(self.env), capture_output=True, timeout=30, check=True)
        return replace(self, revision=revision, tree=done.stdout.decode().strip(), entries=entries)

    async def changed_since(self, revision: str) -> frozenset[str] | None:
        """Paths that differ from an older revision; None when that is not known any more."""
        try:
            args = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", revision, self.revision)
            out = await git.run(self.repository, *args, env=self.env)
        except SourceRejected:
            return None
        return frozenset(os.fsdecode(path) for path in out.split(b"\0")[:-1])

    def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        if small := small_archive(self.entries, self._cache, prefix, self.committed_at):
            return _piece(small)
        args = ["archive", "--format=tar", *([f"--prefix={prefix}"] if prefix else []), self.revision]
        return git.stream(self.repository, *args, env=self.env)


async def open_checkout(repository: Path, revision: str, env: Mapping[str, str] | None = None) -> GitCheckout:
    """Read the tree of `revision`; with `quarantine_environment`, also while a push's objects are not accepted yet.

    Raises SourceRejected for what cannot be deployed: an empty tree, submodules, links that leave it, LFS pointers.
    """
    env = env or {}
    asked = git.run(repository, "log", "-1", "--no-show-signature", "--format=%H %T %ct", revision, "--", env=env)
    facts = asyncio.create_task(asked)  # beside the tree: a process takes longer to start than to answer
    try:
        entries = await read_tree(repository, revision, env)
        commit, tree, committed_at = (await facts).decode().split()
    finally:
        facts.cancel()
        await asyncio.wait([facts])
    if commit != revision:
        raise SourceRejected(
            "the branch would point at a tag object, which Git refuses",
            hint="Push the commit itself: git push <remote> 'TAG^{commit}:refs/heads/main'",
        )
    if not entries:
        raise SourceRejected("the pushed commit holds no files", hint="Add and commit your app's files, then push.")
    _refuse_submodules(entries)
    checkout = GitCheckout(repository, revision, tree, entries, env, int(committed_at))
    await _read_small(checkout)
    return checkout


def _longest(path: str) -> int:
    """Lockfiles of large apps have megabytes, and tools write them."""
    name = path.rpartition("/")[2]
    return _MAX_LOCK if name.endswith(".lock") or name in _LOCKFILES else _MAX_TEXT


async def _piece(data: bytes) -> AsyncIterator[bytes]:
    yield data


def quarantine_environment(repository: Path, quarantine: Path | None) -> dict[str, str]:
    """Lets git see objects that receive-pack has not accepted yet (githooks(5), gitrepository-layout(5))."""
    if quarantine is None:
        return {}
    objects = repository / "objects"
    if quarantine.parent != objects or not quarantine.name.startswith("tmp_objdir-incoming-"):
        raise SourceRejected("the push's quarantine directory is not in the app's repository")
    return {"GIT_OBJECT_DIRECTORY": str(quarantine), "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}


async def _read_small(checkout: GitCheckout) -> None:
    """Look at every link and every file that may be an LFS pointer, and keep small files near the root, in one
    go and one object in memory at a time."""
    links, pointers = defaultdict(list), {}
    for path, entry in checkout.entries.items():
        if entry.mode == SYMLINK:
            links[entry.object_id].append(path)
        elif entry.is_file and entry.size in _LFS_POINTER_SIZES:
            pointers[entry.object_id] = path
    kept = _prefetched(checkout.entries)
    wanted = dict.fromkeys([*links, *pointers, *kept])
    async with aclosing(read_objects(checkout.repository, wanted, checkout.env)) as found:
        async for object_id, content in found:
            for path in links.get(object_id, ()):
                _refuse_escaping_link(path, os.fsdecode(content))
            if object_id in pointers:
                _refuse_lfs(pointers[object_id], content)
            if object_id in kept:
                checkout._cache[object_id] = content


def _prefetched(entries: Mapping[str, Entry]) -> set[str]:
    """What buildpacks will most likely ask for: files of the root, then of folders near it. Whatever else they want is
    read when they do, by a process each."""
    by_depth: defaultdict[int, list[str]] = defaultdict(list)
    for path, entry in entries.items():
        depth = path.count("/")
        if entry.is_file and entry.size <= (_PREFETCH_SIZE_BELOW if depth else _PREFETCH_SIZE):
            by_depth[depth].append(entry.object_id)
    root = by_depth.pop(0, [])
    below = chain.from_iterable(by_depth[depth] for depth in sorted(by_depth))
    return {*root[:_PREFETCH_FILES], *islice(below, _PREFETCH_BELOW)}


def _refuse_submodules(entries: Mapping[str, Entry]) -> None:
    modules = [path for path, entry in entries.items() if entry.mode == SUBMODULE]
    if modules:
        raise SourceRejected(
            f"the repository has submodules ({shown(modules[0])}), which a push does not carry",
            hint="Commit the files themselves: git rm --cached the submodule, then git add its files.",
        )


def _refuse_escaping_link(path: str, target: str) -> None:
    if target.startswith("/") or _leaves(PurePosixPath(path).parent, target):
        raise SourceRejected(
            f"the symbolic link {shown(path)} points outside the repository (to {shown(target)})",
            hint="Replace it by the file itself, or by a relative link inside the repository.",
        )


def _leaves(folder: PurePosixPath, target: str) -> bool:
    depth = len(folder.parts)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _refuse_lfs(path: str, content: bytes) -> None:
    if content.startswith(_LFS_POINTER):
        raise SourceRejected(
            f"{shown(path)} is a Git LFS pointer, and a push does not carry the file it points to",
            hint="Commit the file itself: git lfs migrate export --include='*' --everything",
        )
