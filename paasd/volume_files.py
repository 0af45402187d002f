"""Files into volumes and out of them, while apps use them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeVar

from paasd import events, volume_tar
from paasd.config import Config
from paasd.database import Database
from paasd.drivers.docker_volumes import INSIDE, DockerVolumes, OpenVolume
from paasd.errors import Conflict, DiskFull, InvalidInput, NotFound
from paasd.models import Actor
from paasd.names import shown
from paasd.progress import Progress
from paasd.projects import Projects
from paasd.quotas import Quotas
from paasd.storage import Storage, Volume

T = TypeVar("T")

_IMPORT_TIMEOUT = 4 * 3600.0
_MAX_PATH = 4096
_PIECE = 1 << 20
_AT_ONCE = 4
_LOOK_EVERY = 64 << 20
"""Bytes between two looks at the free space."""


@dataclass(frozen=True)
class _Place:
    """A path of a volume: what is there, and who owns it or, where there is nothing, the directory it would be in."""

    path: str
    kind: bytes | None
    owner: volume_tar.Owner
    missing: tuple[str, ...] = ()
    """The directories on the way, the path itself included, that are not there."""


class VolumeFiles:
    """Owns no table. What comes in is held in a file without a name until all of it was judged."""

    def __init__(
        self,
        config: Config,
        database: Database,
        storage: Storage,
        volumes: DockerVolumes,
        projects: Projects,
        quotas: Quotas,
        image: Callable[[Volume], Awaitable[str]],
        written: Callable[[], Awaitable[None]],
    ) -> None:
        self._config = config
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._projects = projects
        self._quotas = quotas
        self._image = image
        self._written = written
        # Of their own: a large archive keeps a thread busy for minutes, and the daemon's are few.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="volume-files")
        self._taking: set[str] = set()
        """Volumes that files are being taken into."""

    async def take(
        self, actor: Actor, volume: Volume, path: str, data: AsyncIterator[bytes], progress: Progress
    ) -> volume_tar.Contents:
        """Unpack a tar or tar.gz below `path`, files of the same name replaced; they belong to whoever owns the
        directory. Raises InvalidInput, Conflict, QuotaExceeded or DiskFull before anything is written."""
        path = _checked(path)
        _require_ours(volume)
        room = await self._room(volume)
        with self._alone(volume), tempfile.TemporaryFile(dir=self._config.data_dir) as file:
            progress.step(f"Receiving files for {volume.name}")
            async with asyncio.timeout(_IMPORT_TIMEOUT):
                await self._receive(file, data, room)
                room = min(room, self._free())  # the archive lies on the disk by now
                contents = await self._in_thread(partial(volume_tar.check, file, room))
                progress.detail(f"{contents.files} files, {contents.size / 1024**2:.1f} MiB")
                async with self._volumes.opened(volume.engine_name, await self._image(volume)) as opened:
                    place = await _place(opened, volume, path)
                    if place.kind not in (None, tarfile.DIRTYPE):
                        raise InvalidInput(f"{path} of {volume.name} is no directory")
                    folder = f"{INSIDE}/{path}".rstrip("/")
                    missing = [f"{INSIDE}/{part}" for part in place.missing]
                    await opened.write(self._in_pieces(volume_tar.cleaned(file, folder, place.owner, missing)))
        await self._record(actor, "volume.imported", volume, path, files=contents.files, size=contents.size)
        await self._written()
        return contents

    @asynccontextmanager
    async def give(self, actor: Actor, volume: Volume, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of what is at `path`: of a directory its contents, of a file that. Raises NotFound, Conflict."""
        path = _checked(path)
        _require_ours(volume)
        async with self._volumes.opened(volume.engine_name, await self._image(volume)) as opened:
            place = await _place(opened, volume, path)
            if place.kind is None:
                raise NotFound(f"{volume.name} has no {shown(path)}")
            await self._record(actor, "volume.exported", volume, path)
            async with opened.read(path) as pieces:
                source = _Blocking(pieces, asyncio.get_running_loop())
                drop = 1 if place.kind == tarfile.DIRTYPE else 0
                yield self._in_pieces(volume_tar.rebased(source, drop))  # type: ignore[arg-type]

    async def _room(self, volume: Volume) -> float:
        """Bytes that may be written. Raises QuotaExceeded, DiskFull."""
        project = await self.require_disk(volume)
        rooms = [float(self._free())]
        if (of_quotas := await self._quotas.room_on_disk(volume.organization_id, project)) is not None:
            rooms.append(of_quotas)
        if volume.quota is not None:
            rooms.append(volume.quota - float((await self._volumes.sizes()).get(volume.engine_name, 0)))
        return max(0.0, min(rooms))

    async def require_disk(self, volume: Volume) -> str:
        """Raises QuotaExceeded when its project or organization has used its quota up. Returns the project."""
        project = (await self._projects.get(volume.organization_id, volume.project_id)).name
        await self._quotas.require_disk(volume.organization_id, project)
        return project

    def _free(self) -> int:
        """Raises DiskFull."""
        free = shutil.disk_usage(self._config.data_dir).free - self._config.keep.free_bytes
        if free <= 0:
            raise DiskFull("the disk is nearly full", hint="Free space, for example with: paasd cleanup")
        return free

    async def _receive(self, file: IO[bytes], data: AsyncIterator[bytes], room: float) -> None:
        """The archive as it was sent; it may not be larger than what it unpacks to could be, headers included."""
        size, looked = 0, 0
        most = 2 * room + 1024 * volume_tar.MAX_MEMBERS
        async for piece in data:
            size += len(piece)
            if size > most:
                raise InvalidInput(f"the archive is larger than the {room / 1024**2:.0f} MiB that there is room for")
            if size - looked > _LOOK_EVERY:
                looked = size
                self._free()
            await asyncio.to_thread(file.write, piece)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _in_pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Work that blocks, a mebibyte at a time."""

        def some() -> bytes:
            found = bytearray()
            for piece in pieces:
                found += piece
                if len(found) >= _PIECE:
                    break
            return bytes(found)

        while piece := await self._in_thread(some):
            yield piece

    @contextlib.contextmanager
    def _alone(self, volume: Volume) -> Iterator[None]:
        if volume.id in self._taking:
            raise Conflict(f"files are being imported into {volume.name} already", hint="Wait until that is done.")
        self._taking.add(volume.id)
        try:
            yield
        finally:
            self._taking.discard(volume.id)

    async def _record(self, actor: Actor, kind: str, volume: Volume, path: str, **data: Any) -> None:
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                kind,
                organization_id=volume.organization_id,
                actor=actor.name,
                volume=volume.name,
                path=f"/{path}",
                **data,
            )


class _Blocking:
    """What comes in pieces on the loop, as a file for a thread."""

    def __init__(self, pieces: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces = pieces
        self._loop = loop
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if not piece:
                break
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")


async def _place(opened: OpenVolume, volume: Volume, path: str) -> _Place:
    """Every directory on the way is looked at: through a link one would see what is not of the volume."""
    kind, owner, parts = b"", (0, 0), path.split("/") if path else []
    ways = ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
    for depth, way in enumerate(ways):
        found = await opened.first(way)
        if found is None:
            return _Place(path, None, owner, tuple(ways[depth:]))
        try:
            entry = await asyncio.to_thread(volume_tar.first_entry, found)
        except tarfile.TarError as error:
            raise Conflict(f"what the engine tells of /{way} of {volume.name} cannot be read: {error}") from error
        kind, owner = (tarfile.REGTYPE if entry.isreg() else entry.type), (entry.uid, entry.gid)
        if depth < len(parts) and not entry.isdir():
            raise InvalidInput(f"/{way} of {volume.name} is no directory")
    return _Place(path, kind, owner)


def _checked(path: str) -> str:
    """Relative to the volume, empty for all of it. Raises InvalidInput."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or len(path) > _MAX_PATH or not path.isprintable():
        raise InvalidInput(f"{shown(path)} is no path inside a volume", hint="For example: /albums/2026")
    return "/".join(parts)


def _require_ours(volume: Volume) -> None:
    if volume.host_path is not None:
        raise Conflict(f"{volume.name} is {volume.host_path} of the host", hint="Copy files there yourself.")
    if volume.made_at is None:
        raise Conflict(
            f"nothing has mounted {volume.name} yet, so nobody knows whom its files shall belong to",
            hint=f"Mount and deploy it first: storage:mount APP {volume.name} /app/data, then ps:restart APP",
        )
