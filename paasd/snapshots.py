"""Owns `snapshots/`: copies of volumes, one directory a volume, one compressed tar a snapshot. Restores them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from paasd.apps import Apps
from paasd.changes import Changes
from paasd.config import Config
from paasd.drivers.docker_volumes import DockerVolumes
from paasd.errors import Conflict, DiskFull, NotFound
from paasd.models import Actor
from paasd.names import shown
from paasd.progress import Progress
from paasd.release import Releases
from paasd.storage import Storage, Volume

_NAME = re.compile(r"\d{8}-\d{6}")
_SUFFIX = ".tar.gz"
_PIECE = 1 << 20
_RESTORE_TIMEOUT = 4 * 3600.0
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Snapshot:
    name: str
    """`20261123-091500`, UTC."""
    size: int
    """Bytes, compressed."""


class Snapshots:
    def __init__(
        self,
        config: Config,
        storage: Storage,
        volumes: DockerVolumes,
        apps: Apps,
        releases: Releases,
        changes: Changes,
    ) -> None:
        self._config = config
        self._root = config.data_dir / "snapshots"
        self._storage = storage
        self._volumes = volumes
        self._apps = apps
        self._releases = releases
        self._changes = changes

    async def of(self, volume: Volume) -> list[Snapshot]:
        """Newest first."""
        return await asyncio.to_thread(self._list, volume)

    async def take(self, volume: Volume, progress: Progress) -> Snapshot:
        """Copy a volume while it is in use: each file as it is when its turn comes. Raises Conflict, DiskFull."""
        if volume.host_path is not None:
            raise Conflict(f"{volume.name} is {volume.host_path} of the host", hint="Back that directory up yourself.")
        if volume.made_at is None:
            raise Conflict(f"{volume.name} is empty: nothing has mounted it yet")
        image = await self.image(volume)
        name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = self._path(volume, name)
        progress.step(f"Copying {volume.name} to the snapshot {name}")
        async with self._volumes.read(volume.engine_name, image) as tar:
            await self._write(path, tar)
        snapshot = next(found for found in await self.of(volume) if found.name == name)
        progress.detail(f"{snapshot.size / 1024**2:.1f} MiB")
        return snapshot

    async def restore(self, actor: Actor, volume: Volume, name: str | None, progress: Progress) -> None:
        """Put a snapshot (the newest, unless named) in the place of what is there; apps that mount it are restarted.
        Until then, and when it fails, they keep what they have. Raises NotFound, Conflict."""
        if volume.host_path is not None:
            raise Conflict(f"{volume.name} is {volume.host_path} of the host", hint="Restore that directory yourself.")
        image = await self.image(volume)
        found = await self.of(volume)
        chosen = next((s for s in found if name in (None, s.name)), None)
        if chosen is None:
            raise _no_snapshot(volume, name)
        progress.step(f"Restoring {volume.name} from {chosen.name}")
        fresh = await self._storage.make_empty(volume)
        try:
            async with asyncio.timeout(_RESTORE_TIMEOUT):
                await self._volumes.write(fresh, image, _unpacked(self._path(volume, chosen.name)))
        except BaseException:
            await asyncio.shield(self._volumes.remove(fresh))
            raise
        await self._put_in_place(actor, volume, fresh, chosen.name, progress)

    async def begin_empty(self, actor: Actor, volume: Volume, progress: Progress) -> None:
        """Forget what the volume had, or what was lost of it."""
        await self._put_in_place(actor, volume, None, "empty", progress)

    async def remove(self, volume: Volume, name: str) -> None:
        """Raises NotFound."""
        if name not in {found.name for found in await self.of(volume)}:
            raise NotFound(
                f"{volume.name} has no snapshot {shown(name)}", hint=f"List them: storage:info {volume.name}"
            )
        await asyncio.to_thread(self._path(volume, name).unlink)

    async def forget(self, volume: Volume) -> None:
        """All of a volume that is destroyed."""
        await asyncio.to_thread(shutil.rmtree, self._root / volume.id, ignore_errors=True)

    async def _put_in_place(
        self, actor: Actor, volume: Volume, engine_name: str | None, what: str, progress: Progress
    ) -> None:
        await self._storage.replace(actor, volume, engine_name, what)
        for name in await self._storage.users(volume):
            app = await self._apps.get(volume.organization_id, name)
            if app.release_id is not None and not app.stopped:
                progress.step(f"Restarting {name}")
                await self._changes.restart(actor, app, progress)

    async def image(self, volume: Volume) -> str:
        """Any image that is there, for a carrier; which one does not matter."""
        for name in await self._storage.users(volume):
            release = await self._releases.current(await self._apps.get(volume.organization_id, name))
            if release is not None:
                return release.image
        for app in await self._apps.of(volume.organization_id):
            release = await self._releases.current(app)
            if release is not None:
                return release.image
        raise Conflict("no app has been deployed whose image could be used to reach the volume")

    async def _write(self, path: Path, tar: AsyncIterator[bytes]) -> None:
        """Complete or not at all."""
        temporary = path.with_name(f"{path.name}.new")
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        try:
            with await asyncio.to_thread(temporary.open, "wb") as file:
                await self._compress(file, tar)
            await asyncio.to_thread(temporary.replace, path)
        except BaseException:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)
            raise

    async def _compress(self, file: BinaryIO, tar: AsyncIterator[bytes]) -> None:
        packer = zlib.compressobj(wbits=_GZIP)

        def pack(piece: bytes) -> None:
            self._refuse_full_disk()
            file.write(packer.compress(piece))

        def finish() -> None:
            file.write(packer.flush())
            file.flush()
            os.fsync(file.fileno())

        async for piece in _gathered(tar):
            await asyncio.to_thread(pack, piece)
        await asyncio.to_thread(finish)

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self._root).free
        if free < self._config.keep.free_bytes:
            raise DiskFull(
                f"only {free / 1024**3:.1f} GiB are free on the disk of {self._root}",
                hint="Remove old snapshots: storage:info <volume>, storage:snapshot-remove <volume> <snapshot>",
            )

    def _list(self, volume: Volume) -> list[Snapshot]:
        folder = self._root / volume.id
        if not folder.is_dir():
            return []
        found = [
            Snapshot(path.name.removesuffix(_SUFFIX), path.stat().st_size)
            for path in folder.iterdir()
            if path.name.endswith(_SUFFIX) and _NAME.fullmatch(path.name.removesuffix(_SUFFIX))
        ]
        return sorted(found, key=lambda snapshot: snapshot.name, reverse=True)

    def _path(self, volume: Volume, name: str) -> Path:
        return self._root / volume.id / f"{name}{_SUFFIX}"


def _no_snapshot(volume: Volume, name: str | None) -> NotFound:
    named = f" {shown(name)}" if name else ""
    return NotFound(f"{volume.name} has no snapshot{named}", hint=f"List them with: storage:info {volume.name}")


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Larger pieces, since each goes to a thread."""
    waiting: list[bytes] = []
    size = 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


async def _unpacked(path: Path) -> AsyncIterator[bytes]:
    unpacker = zlib.decompressobj(wbits=_GZIP)
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield await asyncio.to_thread(unpacker.decompress, piece)
