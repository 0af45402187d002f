"""Owns `repositories/`: one bare repository per app, named by the app's id so that a rename moves nothing."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path

from paasd.config import Config
from paasd.models import App
from paasd.source import git

_LEFTOVER_AGE = 3600
"""Seconds after which a quarantine directory without a running push is swept."""


class Repositories:
    """Creates repositories on first use and keeps their configuration as written here."""

    def __init__(self, config: Config) -> None:
        self._root = config.repositories
        self._hooks = config.data_dir / "hooks"
        self._max_size = config.push.max_size

    async def prepare(self) -> None:
        """Write the hook, and sweep what killed pushes left behind. Call before the SSH front opens."""
        await asyncio.to_thread(self._write_hooks)
        await asyncio.to_thread(self._sweep, 0.0)

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

    async def branches(self, app: App) -> dict[str, str]:
        """Revision by branch."""
        path = await self.ensure(app)
        out = await git.run(path, "for-each-ref", "--format=%(refname:lstrip=2)%00%(objectname)", "refs/heads")
        return dict(line.split("\0") for line in out.decode(errors="backslashreplace").splitlines())

    async def sweep(self) -> None:
        await asyncio.to_thread(self._sweep, _LEFTOVER_AGE)

    def names(self) -> set[str]:
        """App ids that have a repository."""
        return {p.name.removesuffix(".git") for p in self._root.glob("*.git")}

    def leftovers(self) -> list[str]:
        """Quarantine directories of pushes, running ones included."""
        return [str(path) for path in self._root.glob("*.git/objects/tmp_objdir-incoming-*")]

    def locks(self, app: App) -> list[str]:
        """Lock files of Git in the app's repository."""
        return [str(path) for path in self.path(app).glob("**/*.lock")]

    def _sweep(self, age: float) -> None:
        # receive-pack killed with SIGKILL leaves its quarantine behind and no ref to it.
        for leftover in self._root.glob("*.git/objects/tmp_objdir-incoming-*"):
            if _age(leftover) >= age:
                shutil.rmtree(leftover, ignore_errors=True)
        for lock in self._root.glob("*.git/**/*.lock"):
            if _age(lock) >= age:
                lock.unlink(missing_ok=True)

    def _configure(self, path: Path) -> None:
        (path / "info").mkdir(exist_ok=True)
        # What is deployed is the commit itself, whatever .gitattributes says about archives.
        (path / "info" / "attributes").write_text("* -export-ignore -export-subst\n")
        (path / "config").write_text(
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tsymlinks = false\n"
            f"\thooksPath = {self._hooks}\n"
            f"[receive]\n\tfsckObjects = true\n\tmaxInputSize = {self._max_size}\n\tdenyDeletes = true\n"
            "\tadvertisePushOptions = true\n\tautogc = false\n"
            '[receive "fsck"]\n\tmissingSpaceBeforeDate = ignore\n\tzeroPaddedFilemode = ignore\n'
            "[gc]\n\tauto = 0\n[tar]\n\tumask = 0022\n[uploadpack]\n\tallowAnySHA1InWant = false\n"
        )

    def _write_hooks(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hooks.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = Path(__file__).parent.parent / "push" / "hook.py"
        hook = self._hooks / "pre-receive"
        temporary = hook.with_suffix(".new")
        temporary.write_text(f"#!{sys.executable} -IS\n{source.read_text()}")
        temporary.chmod(0o700)
        temporary.replace(hook)


def _age(path: Path) -> float:
    """Seconds since the last change; less than nothing for what Git removed meanwhile."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return -1.0
