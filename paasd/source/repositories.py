"""Owns `repositories/`: one bare repository per app, named by the app's id so that a rename moves nothing."""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from paasd.clock import steady
from paasd.config import Config
from paasd.models import App, RefUpdate
from paasd.source import git

# What is deployed is the commit, byte for byte: no attribute of the repository's own may leave files out of the archive
# or rewrite them. `info/attributes` comes before every .gitattributes; `false` is not a legal working-tree-encoding.
_ATTRIBUTES = "* -export-ignore -export-subst -text -ident -filter !working-tree-encoding\n"
_BIG_FILE = 16 * 1024**2
"""Larger files pass through git's processes in pieces instead of being held in their memory."""
_LOCK_AGE, _QUARANTINE_AGE = 3600.0, 86400.0
"""Seconds without a change after which they are swept. A push keeps its quarantine while it waits and deploys."""


class Repositories:
    """Creates repositories on first use and keeps their configuration as written here."""

    def __init__(self, config: Config) -> None:
        self._root = config.repositories
        self._hooks = config.data_dir / "hooks"
        self._max_size = config.push.max_size
        self._seen: dict[Path, tuple[int, float]] = {}
        """Leftovers, perhaps: their last change, and since when it has been that."""

    async def prepare(self) -> None:
        """Write the hook and all configuration, and sweep what killed pushes left. Call before the SSH front opens."""
        await asyncio.to_thread(self._write_hooks)
        await asyncio.to_thread(self._configure_all)
        await asyncio.to_thread(self._sweep, 0.0, 0.0)

    def path(self, app: App) -> Path:
        return self._root / f"{app.id}.git"

    async def ensure(self, app: App) -> Path:
        path = self.path(app)
        if not (path / "HEAD").exists():
            await asyncio.to_thread(path.mkdir, parents=True, exist_ok=True)
            await git.run(path, "init", "--quiet", "--bare", "--initial-branch=main", "--template=", ".")
            await asyncio.to_thread(self._configure, path)
        return path

    async def remove(self, app_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / f"{app_id}.git", True)

    async def clone(self, source: App, target: App) -> None:
        """Give `target` the branches of `source`."""
        if (self.path(source) / "HEAD").exists():
            path = await self.ensure(target)
            refs = "+refs/heads/*:refs/heads/*"
            await git.run(path, "fetch", "--quiet", str(self.path(source)), refs, timeout=300)

    async def refs(self, app: App) -> dict[str, str]:
        """Object by full name of the branch or tag."""
        path = await self.ensure(app)
        out = await git.run(path, "for-each-ref", "--format=%(refname)%00%(objectname)")
        return dict(line.split("\0") for line in os.fsdecode(out).split("\n") if line)

    async def rehearse(self, app: App, updates: Sequence[RefUpdate], env: Mapping[str, str]) -> None:
        """Have git prepare and abandon what it will do once its hook has said yes. Raises PaasdError with its words
        when it would refuse: names that exclude each other, a lock, an object that may not be there."""
        lines = ["start", *(f"update {u.ref}\0{u.new}\0{u.old}" for u in updates), "prepare", "abort", ""]
        await git.run(self.path(app), "update-ref", "--stdin", "-z", env=env, stdin=os.fsencode("\0".join(lines)))

    async def sweep(self) -> None:
        await asyncio.to_thread(self._sweep, _LOCK_AGE, _QUARANTINE_AGE)

    def names(self) -> set[str]:
        """App ids that have a repository."""
        return {p.name.removesuffix(".git") for p in self._root.glob("*.git")}

    def leftovers(self) -> list[str]:
        """Quarantine directories of pushes, running ones included."""
        return [str(path) for path in self._find("*.git/objects/tmp_objdir-incoming-*")]

    def locks(self, app: App) -> list[str]:
        """Lock files of Git in the app's repository."""
        return [str(path) for path in _locks_in(self.path(app))]

    def _sweep(self, lock_age: float, quarantine_age: float) -> None:
        # receive-pack killed with SIGKILL leaves its quarantine behind and no ref to it.
        quarantines = list(self._find("*.git/objects/tmp_objdir-incoming-*"))
        locks = [lock for repository in self._root.glob("*.git") for lock in _locks_in(repository)]
        self._seen = {path: seen for path in (*quarantines, *locks) if (seen := self._look_at(path))}
        for leftover in quarantines:
            if self._age(leftover) >= quarantine_age:
                shutil.rmtree(leftover, ignore_errors=True)
        for lock in locks:
            if self._age(lock) >= lock_age:
                lock.unlink(missing_ok=True)

    def _look_at(self, path: Path) -> tuple[int, float] | None:
        """Not the age that the file tells: with a clock that was set, a push under way would look old."""
        try:
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        seen = self._seen.get(path)
        return seen if seen and seen[0] == changed else (changed, steady())

    def _age(self, path: Path) -> float:
        """Seconds for which nothing has changed; less than nothing for what Git removed meanwhile."""
        return steady() - self._seen[path][1] if path in self._seen else -1.0

    def _find(self, pattern: str) -> Iterator[Path]:
        """Paths under the root. Git removes directories meanwhile: `glob` passes over these, `Path.glob` raises."""
        return (self._root / found for found in glob.iglob(pattern, root_dir=self._root, recursive=True))

    def _configure_all(self) -> None:
        for path in self._root.glob("*.git"):
            if (path / "HEAD").exists():
                self._configure(path)

    def _configure(self, path: Path) -> None:
        (path / "info").mkdir(exist_ok=True)
        _replace(path / "info" / "attributes", _ATTRIBUTES)
        _replace(
            path / "config",
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tsymlinks = false\n"
            f"\thooksPath = {self._hooks}\n\tbigFileThreshold = {_BIG_FILE}\n"
            f"[receive]\n\tfsckObjects = true\n\tmaxInputSize = {self._max_size}\n\tdenyDeleteCurrent = ignore\n"
            "\tadvertisePushOptions = true\n\tautogc = false\n"
            '[receive "fsck"]\n\tmissingSpaceBeforeDate = ignore\n\tzeroPaddedFilemode = ignore\n'
            "[gc]\n\tauto = 0\n[tar]\n\tumask = 0022\n[uploadpack]\n\tallowAnySHA1InWant = false\n",
        )

    def _write_hooks(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hooks.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = Path(__file__).parent.parent / "push" / "hook.py"
        hook = self._hooks / "pre-receive"
        _replace(hook, f"#!{sys.executable} -IS\n{source.read_text()}", 0o700)


def _replace(path: Path, text: str, mode: int = 0o600) -> None:
    """Git may be reading it."""
    if _holds(path, text, mode):
        return
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


def _holds(path: Path, text: str, mode: int) -> bool:
    try:
        return path.read_text() == text and path.stat().st_mode & 0o777 == mode
    except (OSError, ValueError):
        return False


def _locks_in(repository: Path) -> Iterator[Path]:
    """Lock files of Git, looked for everywhere but among the objects, which are most of a repository and are written
    without locks. What Git removes meanwhile is passed over."""
    for folder, folders, names in os.walk(repository):
        if os.path.dirname(folder) == str(repository) and os.path.basename(folder) == "objects":
            folders[:] = [name for name in folders if name == "info"]
        yield from (Path(folder, name) for name in names if name.endswith(".lock"))
