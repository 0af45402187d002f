"""Repositories that Git changes while they are looked through."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from paasd.config import Config
from paasd.source.repositories import Repositories


async def test_a_sweep_passes_over_what_git_removes_meanwhile(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path)
    repositories = Repositories(config)
    await repositories.prepare()
    objects = config.repositories / "0f.git" / "objects"
    stop = threading.Event()

    def push_again_and_again() -> None:
        while not stop.is_set():
            for number in range(20):
                (objects / "tmp_objdir-incoming-x" / f"{number:02x}").mkdir(parents=True)
            shutil.rmtree(objects / "tmp_objdir-incoming-x")

    git = threading.Thread(target=push_again_and_again)
    git.start()
    try:
        for _ in range(300):
            await repositories.sweep()
    finally:
        stop.set()
        git.join()


async def test_a_sweep_removes_old_locks_and_quarantines_only(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path)
    repositories = Repositories(config)
    repository = config.repositories / "0f.git"
    (repository / "refs" / "heads").mkdir(parents=True)
    (repository / "objects" / "tmp_objdir-incoming-x").mkdir(parents=True)
    (repository / "refs" / "heads" / "main.lock").touch()
    (repository / "refs" / "heads" / "main").touch()

    for path in (repository / "objects" / "tmp_objdir-incoming-x", repository / "refs" / "heads" / "main.lock"):
        os.utime(path, (0, 0))  # what a push under way looks like when the clock was put forward by years
    await repositories.sweep()
    await repositories.sweep()
    assert repositories.leftovers() == [str(repository / "objects" / "tmp_objdir-incoming-x")]
    assert (repository / "refs" / "heads" / "main.lock").exists()

    await repositories.prepare()
    assert repositories.leftovers() == []
    assert [path.name for path in (repository / "refs" / "heads").iterdir()] == ["main"]
