"""A checkout: one revision of an app's repository, read straight from Git's object store. There is never a work tree,
so nothing in it can run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from paasd.errors import SourceRejected
from paasd.models import Manifest, shown
from paasd.source import app_json, git, procfile

_SYMLINK, _SUBMODULE = "120000", "160000"
_PREFETCH_FILES, _PREFETCH_SIZE = 200, 256 * 1024
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_SIZE = 200
_MAX_TEXT = 1024 * 1024
_MAX_LINK = 4096
MAX_FILES = 300_000
MAX_BYTES = 8 * 1024**3


@dataclass(frozen=True)
class Entry:
    """One path of the tree; `object_id` names its content."""

    mode: str
    object_id: str
    size: int


@dataclass(frozen=True)
class GitCheckout:
    """Implements `models.Checkout`. Made by `open_checkout`."""

    repository: Path
    revision: str
    tree: str
    entries: Mapping[str, Entry]
    env: Mapping[str, str]
    _cache: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def manifest(self) -> Manifest:
        """Raises SourceRejected for a Procfile or app.json that is not right."""
        text = self.read("Procfile")
        return Manifest(
            process_types=None if text is None else procfile.parse(text),
            healthchecks=app_json.healthchecks(self.read("app.json")),
        )

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self.entries)

    def read(self, path: str) -> str | None:
        entry = self.entries.get(path)
        if entry is None or entry.mode in (_SYMLINK, _SUBMODULE):
            return None
        if entry.size > _MAX_TEXT:
            raise SourceRejected(
                f"{shown(path)} has {entry.size} bytes; paasd reads files of at most {_MAX_TEXT}",
                hint="Files such as Procfile, app.json and requirements.txt are small; this one is something else.",
            )
        if entry.object_id not in self._cache:
            command = [git.GIT, "-C", str(self.repository), "cat-file", "blob", entry.object_id]
            done = subprocess.run(command, env=git.environment(self.env), capture_output=True, timeout=30, check=True)
            self._cache[entry.object_id] = done.stdout
        return self._cache[entry.object_id].decode("utf-8", errors="replace").removeprefix("\ufeff")

    def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        args = ["archive", "--format=tar", *([f"--prefix={prefix}"] if prefix else []), self.revision]
        return git.stream(self.repository, *args, env=self.env)


async def open_checkout(repository: Path, revision: str, quarantine: Path | None = None) -> GitCheckout:
    """Read the tree of `revision`, also while its objects are still in a push's quarantine directory.

    Raises SourceRejected for what cannot be deployed: an empty tree, submodules, links that leave it, LFS pointers.
    """
    env = quarantine_environment(repository, quarantine)
    listing = await git.run(repository, "ls-tree", "-r", "-z", "-l", "--full-tree", revision, env=env)
    names = await git.run(repository, "rev-parse", f"{revision}^{{commit}}", f"{revision}^{{tree}}", env=env)
    commit, tree = names.decode().split()
    if commit != revision:
        raise SourceRejected(
            "the branch would point at a tag object, which Git refuses",
            hint="Push the commit itself: git push <remote> 'TAG^{commit}:refs/heads/main'",
        )
    entries = _entries(listing)
    _refuse_large(entries)
    if not entries:
        raise SourceRejected("the pushed commit holds no files", hint="Add and commit your app's files, then push.")
    if len(entries) > MAX_FILES:
        raise SourceRejected(
            f"the pushed commit holds {len(entries)} files, more than {MAX_FILES}",
            hint="Leave out what is generated, such as node_modules, with a .gitignore.",
        )
    checkout = GitCheckout(repository, revision, tree, entries, env)
    await _fill_cache(checkout)
    _refuse_submodules(checkout)
    _refuse_escaping_links(checkout)
    _refuse_lfs(checkout)
    return checkout


def _refuse_large(entries: Mapping[str, Entry]) -> None:
    """Before anything is read: a small push may unpack to far more than any disk holds."""
    total = sum(entry.size for entry in entries.values())
    if total > MAX_BYTES:
        raise SourceRejected(
            f"the pushed commit unpacks to {total / 1024**3:.1f} GiB, more than {MAX_BYTES / 1024**3:.0f} GiB",
            hint="Keep large data outside the repository.",
        )
    for path, entry in entries.items():
        if entry.mode == _SYMLINK and entry.size > _MAX_LINK:
            raise SourceRejected(f"the symbolic link {shown(path)} has a target of {entry.size} bytes")


def quarantine_environment(repository: Path, quarantine: Path | None) -> dict[str, str]:
    """Lets git see objects that receive-pack has not accepted yet (githooks(5), gitrepository-layout(5))."""
    if quarantine is None:
        return {}
    objects = repository / "objects"
    if quarantine.parent != objects or not quarantine.name.startswith("tmp_objdir-incoming-"):
        raise SourceRejected("the push's quarantine directory is not in the app's repository")
    return {"GIT_OBJECT_DIRECTORY": str(quarantine), "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}


def _entries(listing: bytes) -> dict[str, Entry]:
    entries = {}
    for record in listing.split(b"\0")[:-1]:
        meta, _, path = record.partition(b"\t")
        mode, _, object_id, size = meta.decode("ascii").split()
        entries[os.fsdecode(path)] = Entry(mode, object_id, 0 if size == "-" else int(size))
    return entries


async def _fill_cache(checkout: GitCheckout) -> None:
    """Fetch small files of the root directory, links and possible LFS pointers in one go."""
    links = [e.object_id for e in checkout.entries.values() if e.mode == _SYMLINK]
    others = [
        entry.object_id
        for path, entry in checkout.entries.items()
        if entry.mode.startswith("100") and (("/" not in path and entry.size <= _PREFETCH_SIZE) or _may_be_lfs(entry))
    ]
    wanted = dict.fromkeys([*links, *others[:_PREFETCH_FILES]])
    request = "".join(f"{object_id}\n" for object_id in wanted).encode()
    out = await git.run(checkout.repository, "cat-file", "--batch", env=checkout.env, stdin=request)
    position = 0
    while position < len(out):
        end = out.index(b"\n", position)
        object_id, _, size = out[position:end].decode().split()
        start = end + 1
        checkout._cache[object_id] = out[start : start + int(size)]
        position = start + int(size) + 1


def _may_be_lfs(entry: Entry) -> bool:
    return entry.mode.startswith("100") and 100 <= entry.size <= _LFS_POINTER_SIZE


def _refuse_submodules(checkout: GitCheckout) -> None:
    modules = [path for path, entry in checkout.entries.items() if entry.mode == _SUBMODULE]
    if modules:
        raise SourceRejected(
            f"the repository has submodules ({shown(modules[0])}), which a push does not carry",
            hint="Commit the files themselves: git rm --cached the submodule, then git add its files.",
        )


def _refuse_escaping_links(checkout: GitCheckout) -> None:
    for path, entry in checkout.entries.items():
        if entry.mode != _SYMLINK:
            continue
        target = os.fsdecode(checkout._cache.get(entry.object_id, b""))
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


def _refuse_lfs(checkout: GitCheckout) -> None:
    for path, entry in checkout.entries.items():
        if _may_be_lfs(entry) and checkout._cache.get(entry.object_id, b"").startswith(_LFS_POINTER):
            raise SourceRejected(
                f"{shown(path)} is a Git LFS pointer, and a push does not carry the file it points to",
                hint="Commit the file itself: git lfs migrate export --include='*' --everything",
            )
