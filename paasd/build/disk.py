"""Room on the disk: refuses builds, ends them and trims the engine's build cache, so that apps can still write.

An engine keeps one build cache for all who use it and does not say who made what of it, so trimming goes by age alone.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from paasd.config import Config
from paasd.docker_engine import DockerEngine
from paasd.errors import DiskFull, PaasdError

_log = logging.getLogger(__name__)

_GIB = 1024**3
_LOOK_EVERY = 0.5
_TRIM_EVERY = 600.0
_TRIM_TIMEOUT = 300.0
_FREE_MORE = "Free space with: paasd cleanup, or paasd cleanup --all (the whole build cache too). Running apps go on."


class Disk:
    def __init__(self, config: Config, engine: DockerEngine) -> None:
        self._config = config
        self._engine = engine
        self._root: Path | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._trimmed_at = 0.0

    async def require(self) -> None:
        """Refuse to build on a nearly full disk, while the running apps still have room to write. Raises DiskFull."""
        needed = self._config.keep.free_bytes
        if await self._short_of(needed):
            await self._attempt_trim(await self._cache_limit() // 2)
        if short := await self._short_of(needed):
            path, free = short
            raise DiskFull(
                f"only {free / _GIB:.1f} GiB are free on the disk of {path}; a build needs {needed / _GIB:.1f} GiB",
                hint=_FREE_MORE,
            )

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Ends the block when half of what builds must leave free is used up. Raises DiskFull then."""
        short: list[tuple[Path, int]] = []
        try:
            async with asyncio.timeout(None) as cut:
                watch = asyncio.create_task(self._watch(cut, short))
                try:
                    yield
                finally:
                    watch.cancel()
        except TimeoutError:
            if not cut.expired() or not short:
                raise
            path, free = short[0]
            await self._attempt_trim(await self._cache_limit() // 2)
            raise DiskFull(
                f"the build was ended: it left only {free / _GIB:.1f} GiB free on the disk of {path}",
                hint=f"Make the build write less. {_FREE_MORE}",
            ) from None
        finally:
            self._trim_later()

    async def prune_cache(self, *, everything: bool = False) -> int:
        """Remove what was not used longest, down to `build.cache_limit`, or all; returns the bytes freed."""
        return await self._trim(0 if everything else await self._cache_limit())

    async def _watch(self, cut: asyncio.Timeout, short: list[tuple[Path, int]]) -> None:
        while not cut.expired():
            if found := await self._short_of(self._config.keep.free_bytes // 2):
                short.append(found)
                cut.reschedule(asyncio.get_running_loop().time())
                return
            await asyncio.sleep(_LOOK_EVERY)

    async def _short_of(self, needed: int) -> tuple[Path, int] | None:
        """The disk with less than this much free, and what is free there."""
        for path in (self._config.data_dir, await self._engine_root()):
            free = (await asyncio.to_thread(_usage, path)).free
            if free < needed:
                return path, free
        return None

    async def _engine_root(self) -> Path:
        if self._root is None:
            self._root = Path((await self._engine.info()).get("DockerRootDir", "/var/lib/docker"))
        return self._root

    async def _cache_limit(self) -> int:
        if self._config.build.cache_limit:
            return self._config.build.cache_limit
        root = await self._engine_root()
        return min(10 * _GIB, (await asyncio.to_thread(_usage, root)).total // 10)

    def _trim_later(self) -> None:
        """After a build, beside whatever follows, and not after each of many."""
        if self._trimming is not None and not self._trimming.done():
            return
        if self._trimmed_at and time.monotonic() - self._trimmed_at < _TRIM_EVERY:
            return
        self._trimmed_at = time.monotonic()
        self._trimming = asyncio.create_task(self._trim_to_limit())

    async def _trim_to_limit(self) -> None:
        try:
            freed = await self.prune_cache()
        except PaasdError as error:
            _log.warning("the build cache cannot be trimmed: %s", error.detail)
            return
        if freed:
            _log.info("the build cache was over its limit; %.1f GiB of it were removed", freed / _GIB)

    async def _attempt_trim(self, keep: int) -> None:
        try:
            await self._trim(keep)
        except PaasdError as error:
            _log.warning("the build cache cannot be trimmed: %s", error.detail)

    async def _trim(self, keep: int) -> int:
        # What engines before API 1.48 call keep-storage is max-used-space since. Each passes over the other's word.
        params = {"all": keep == 0, "keep-storage": keep or None, "max-used-space": keep or None}
        answer = await self._engine.request("POST", "/build/prune", params=params, timeout=_TRIM_TIMEOUT)
        return int(answer.get("SpaceReclaimed") or 0)


def _usage(path: Path) -> shutil._ntuple_diskusage:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path)
