"""Volumes of one Docker engine, labelled `paasd.instance=<label>`, and getting data in and out of them.

The engine reads and writes a volume only through a container that mounts it, so one is created for that, never started,
and removed again.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import secrets
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from paasd.docker_engine import DockerEngine
from paasd.drivers.docker_containers import INSTANCE, ROLE, mount_options
from paasd.errors import Conflict, EngineConflict, EngineError, EngineNotFound
from paasd.models import Mount

_log = logging.getLogger(__name__)

_CARRIER = "volume-carrier"
INSIDE = "volume"
"""Where a carrier has it, without the slash."""
_INSIDE = f"/{INSIDE}"
_BEGINNING = 8192
_COPY_IDLE = 120.0
"""Seconds without a byte after which a copy counts as hung."""
_SIZES_TIMEOUT = 120.0
_IN_THE_WAY = re.compile(r'cannot overwrite ((?:non-)?directory) "/volume/(.*?)" with ')
"""What the engine says to `noOverwriteDirNonDir`."""


class DockerVolumes:
    def __init__(self, engine: DockerEngine, label: str) -> None:
        self._engine = engine
        self._label = label

    async def names(self) -> set[str]:
        filters = {"label": [f"{INSTANCE}={self._label}"]}
        found = await self._engine.request("GET", "/volumes", params={"filters": filters})
        return {str(volume["Name"]) for volume in found["Volumes"] or []}

    async def create(self, name: str) -> None:
        """Twice: nothing happens."""
        await self._engine.request("POST", "/volumes/create", json={"Name": name, "Labels": {INSTANCE: self._label}})

    async def remove(self, name: str) -> None:
        """Missing: nothing happens. Raises EngineConflict while a container uses it."""
        try:
            await self._engine.request("DELETE", f"/volumes/{name}")
        except EngineNotFound:
            return
        except EngineError as error:
            if "in use" in error.detail:
                raise EngineConflict(f"volume {name} is still in use by instances") from error
            raise

    async def own(self, name: str, image: str, path: str, user: tuple[int, int] | None) -> None:
        """Fill a new volume with what the image has at `path`, as the engine does, and give the directory to `user`
        (uid, gid)."""
        async with self._carrier(name, image, path) as carrier:
            if user is not None:
                await self._put(carrier, "/", _directory(path, *user))

    @asynccontextmanager
    async def read(self, name: str, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """All of a volume as an uncompressed tar, its directory being `volume/`."""
        async with self.opened(name, image) as volume, volume.read("") as pieces:
            yield pieces

    async def write(self, name: str, image: str, tar: AsyncIterator[bytes]) -> None:
        """Unpack what `read` gave into an empty volume. The caller bounds the time."""
        async with self.opened(name, image) as volume:
            await volume.write(tar)

    @asynccontextmanager
    async def opened(self, name: str, image: str) -> AsyncIterator[OpenVolume]:
        """For several looks at a volume; it may be in use."""
        async with self._carrier(name, image, _INSIDE) as carrier:
            yield OpenVolume(self._engine, carrier)

    async def sizes(self) -> dict[str, int]:
        """Bytes by volume. The engine walks through all files for that."""
        found = await self._engine.request("GET", "/system/df", params={"type": "volume"}, timeout=_SIZES_TIMEOUT)
        return {
            volume["Name"]: int(volume["UsageData"]["Size"])
            for volume in found["Volumes"] or []
            if (volume.get("Labels") or {}).get(INSTANCE) == self._label and volume.get("UsageData")
        }

    async def remove_carriers(self) -> None:
        """Of a daemon that was killed: for the start."""
        filters = {"label": [f"{INSTANCE}={self._label}", f"{ROLE}={_CARRIER}"]}
        for container in await self._engine.request("GET", "/containers/json", params={"all": 1, "filters": filters}):
            await self._discard(container["Id"])

    @asynccontextmanager
    async def _carrier(self, name: str, image: str, path: str) -> AsyncIterator[str]:
        container = f"{self._label}-carrier-{secrets.token_hex(4)}"
        options: dict[str, Any] = {
            "Image": image,
            "Labels": {INSTANCE: self._label, ROLE: _CARRIER},
            "Entrypoint": ["/never/started"],
            "NetworkDisabled": True,
            "HostConfig": {"NetworkMode": "none", "Mounts": [mount_options(Mount(path, volume=name))]},
        }
        creating = asyncio.ensure_future(
            self._engine.request("POST", "/containers/create", params={"name": container}, json=options)
        )
        try:
            await asyncio.shield(creating)
            yield container
        finally:
            await asyncio.wait([creating])
            await asyncio.shield(self._discard(container))

    async def _put(self, container: str, path: str, tar: bytes) -> None:
        await self._engine.request("PUT", f"/containers/{container}/archive", params={"path": path}, data=tar)

    async def _discard(self, container: str) -> None:
        try:
            await self._engine.request("DELETE", f"/containers/{container}", params={"force": 1})
        except EngineNotFound:
            return
        except EngineError as error:
            _log.warning("%s was not removed: %s", container, error.detail)


class OpenVolume:
    """One volume, as its carrier sees it. Paths are relative to the volume and empty for all of it."""

    def __init__(self, engine: DockerEngine, carrier: str) -> None:
        self._engine = engine
        self._carrier = carrier

    async def first(self, path: str) -> bytes | None:
        """The beginning of the tar of what is there, which tells what it is; None for nothing."""
        try:
            async with self.read(path) as pieces:
                found = b""
                async for piece in pieces:
                    found += piece
                    if len(found) >= _BEGINNING:
                        break
                return found
        except EngineNotFound:
            return None

    @asynccontextmanager
    async def read(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar whose names begin with the last part of the path."""
        async with self._engine.stream(
            "GET",
            f"/containers/{self._carrier}/archive",
            params={"path": f"{_INSIDE}/{path}".rstrip("/")},
            idle_timeout=_COPY_IDLE,
        ) as answer:
            yield answer.chunks()

    async def write(self, tar: AsyncIterator[bytes]) -> None:
        """A tar whose names begin with `volume/`. The caller bounds the time. Raises Conflict for a directory that
        would take the place of something else or the other way round; what came before that is written."""
        params = {"path": "/", "noOverwriteDirNonDir": "1"}
        try:
            async with self._engine.stream(
                "PUT", f"/containers/{self._carrier}/archive", params=params, data=tar, open_timeout=None
            ) as answer:
                async for _ in answer.chunks():
                    pass
        except EngineError as error:
            if found := _IN_THE_WAY.search(error.detail):
                raise _in_the_way(*found.groups()) from error
            raise


def _in_the_way(kind: str, path: str) -> Conflict:
    there, new = ("a directory", "none") if kind == "directory" else ("no directory", "one")
    return Conflict(
        f"/{path} is {there} in the volume and {new} in the archive, so the import ended there",
        hint="What came before it in the archive is written. Move one of the two away, and import again.",
    )


def _directory(path: str, uid: int, gid: int) -> bytes:
    """A tar of one directory, which the engine gives to its owner when it unpacks it."""
    entry = tarfile.TarInfo(f"{path.strip('/')}/")
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(entry)
    return buffer.getvalue()
