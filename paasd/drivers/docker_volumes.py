"""Volumes of one Docker engine, labelled `paasd.instance=<label>`, and getting data in and out of them.

The engine reads and writes a volume only through a container that mounts it, so one is created for that, never started,
and removed again.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from paasd.docker_engine import DockerEngine
from paasd.drivers.docker_containers import INSTANCE, ROLE, mount_options
from paasd.errors import EngineConflict, EngineError, EngineNotFound
from paasd.models import Mount

_log = logging.getLogger(__name__)

_CARRIER = "volume-carrier"
_INSIDE = "/volume"
_COPY_IDLE = 120.0
"""Seconds without a byte after which a copy counts as hung."""
_SIZES_TIMEOUT = 120.0


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
        async with (
            self._carrier(name, image, _INSIDE) as carrier,
            self._engine.stream(
                "GET", f"/containers/{carrier}/archive", params={"path": _INSIDE}, idle_timeout=_COPY_IDLE
            ) as answer,
        ):
            yield answer.chunks()

    async def write(self, name: str, image: str, tar: AsyncIterator[bytes]) -> None:
        """Unpack what `read` gave into an empty volume. The caller bounds the time."""
        async with self._carrier(name, image, _INSIDE) as carrier:
            async with self._engine.stream(
                "PUT", f"/containers/{carrier}/archive", params={"path": "/"}, data=tar, open_timeout=None
            ) as answer:
                async for _ in answer.chunks():
                    pass

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


def _directory(path: str, uid: int, gid: int) -> bytes:
    """A tar of one directory, which the engine gives to its owner when it unpacks it."""
    entry = tarfile.TarInfo(f"{path.strip('/')}/")
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(entry)
    return buffer.getvalue()
