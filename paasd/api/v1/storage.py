"""Volumes, where they are mounted, and their snapshots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import pydantic
from aiohttp import web

from paasd.api.operations import Body, Call, Operation
from paasd.apps import Apps
from paasd.drivers.docker_volumes import DockerVolumes
from paasd.errors import InvalidInput, PaasdError
from paasd.identity.policy import Action, authorize
from paasd.names import chosen_name
from paasd.snapshots import Snapshots
from paasd.storage import Storage, Volume
from paasd.volume_files import VolumeFiles

_log = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_Bytes = Annotated[int, pydantic.Field(ge=1, le=2**50)]


class NewVolume(Body):
    """In the project of `app`, or in `project` (made if it is missing). `host_path` is for administrators."""

    name: str
    app: str | None = None
    project: str | None = None
    host_path: str | None = None
    quota: _Bytes | None = None


class VolumeChange(Body):
    quota: _Bytes | None = None


class NewMount(Body):
    volume: str
    path: str
    process_type: str | None = None
    read_only: bool = False


class OldMount(Body):
    path: str


class Restore(Body):
    """The newest snapshot, unless one is named; or nothing at all."""

    snapshot: str | None = None
    empty: bool = False


class StorageResource:
    def __init__(
        self, apps: Apps, storage: Storage, snapshots: Snapshots, volumes: DockerVolumes, files: VolumeFiles
    ) -> None:
        self._apps = apps
        self._storage = storage
        self._snapshots = snapshots
        self._volumes = volumes
        self._files = files

    def operations(self) -> Sequence[Operation]:
        one, mounts = "/volumes/{volume}", "/apps/{app}/mounts"
        read, change, app_change = Action.APP_READ, Action.VOLUME_CHANGE, Action.APP_CONFIGURE
        return [
            Operation("GET", "/volumes", read, self.listing, "List volumes with their sizes"),
            Operation("POST", "/volumes", change, self.create, "Create a volume", NewVolume),
            Operation("GET", one, read, self.info, "One volume, its snapshots included"),
            Operation("PATCH", one, change, self.change, "Set a volume's quota", VolumeChange),
            Operation("DELETE", one, change, self.destroy, "Destroy a volume that nothing mounts, and its snapshots"),
            Operation("POST", f"{one}/snapshots", change, self.snapshot, "Copy a volume", streams=True),
            Operation("DELETE", f"{one}/snapshots/{{name}}", change, self.remove_snapshot, "Remove a snapshot"),
            Operation("POST", f"{one}/restore", change, self.restore, "Put a snapshot in place", Restore, streams=True),
            Operation(
                "POST", f"{one}/files", change, self.take, "Unpack the tar in the body below `path=`", streams=True
            ),
            Operation("GET", f"{one}/files", change, self.give, "What is at `path=`, as a tar"),
            Operation("GET", mounts, read, self.mounts, "What an app mounts"),
            Operation("POST", mounts, app_change, self.mount, "Mount a volume from the next deployment on", NewMount),
            Operation("DELETE", mounts, app_change, self.unmount, "Unmount from the next deployment on", OldMount),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        volumes = await self._storage.of(call.actor.organization_id)
        sizes = await self._volumes.sizes() if volumes else {}
        return {"items": [await self._shape(volume, sizes) for volume in volumes]}

    async def create(self, call: Call) -> dict[str, Any]:
        body: NewVolume = call.body
        if body.host_path is not None:
            authorize(call.actor, Action.HOST_PATH, call.actor.organization_id)
        project = chosen_name(body.project or body.name)
        if body.app is not None:
            project = (await self._apps.get(call.actor.organization_id, body.app)).project
        volume = await self._storage.create(
            call.actor, body.name, project=project, host_path=body.host_path, quota=body.quota
        )
        return await self._shape(volume, {})

    async def info(self, call: Call) -> dict[str, Any]:
        volume = await self._volume(call)
        found = await self._snapshots.of(volume)
        return {
            **await self._shape(volume, await self._volumes.sizes()),
            "snapshots": [{"name": snapshot.name, "size": snapshot.size} for snapshot in found],
        }

    async def change(self, call: Call) -> dict[str, Any]:
        volume = await self._storage.set_quota(call.actor, await self._volume(call), call.body.quota)
        return await self._shape(volume, {})

    async def destroy(self, call: Call) -> dict[str, Any]:
        volume = await self._volume(call)
        await self._storage.destroy(call.actor, volume)
        await self._snapshots.forget(volume)
        return {"name": volume.name}

    async def snapshot(self, call: Call) -> dict[str, Any]:
        volume = await self._volume(call)
        await self._files.require_disk(volume)
        taken = await self._snapshots.take(volume, call.progress)
        return {"name": taken.name, "size": taken.size}

    async def remove_snapshot(self, call: Call) -> dict[str, Any]:
        name = call.request.match_info["name"]
        await self._snapshots.remove(await self._volume(call), name)
        return {"name": name}

    async def restore(self, call: Call) -> dict[str, Any]:
        body: Restore = call.body
        if body.empty and body.snapshot:
            raise InvalidInput("say either which snapshot or that it shall be empty")
        volume = await self._volume(call)
        if body.empty:
            await self._snapshots.begin_empty(call.actor, volume, call.progress)
        else:
            await self._snapshots.restore(call.actor, volume, body.snapshot, call.progress)
        return {"name": volume.name}

    async def take(self, call: Call) -> dict[str, Any]:
        volume, path = await self._volume(call), call.request.query.get("path", "")
        data = call.request.content.iter_chunked(_CHUNK)
        taken = await self._files.take(call.actor, volume, path, data, call.progress)
        return {"files": taken.files, "size": taken.size}

    async def give(self, call: Call) -> web.StreamResponse:
        response, path = (
            web.StreamResponse(headers={"Content-Type": "application/x-tar"}),
            call.request.query.get("path"),
        )
        async with self._files.give(call.actor, await self._volume(call), path or "") as pieces:
            await response.prepare(call.request)
            try:
                async for piece in pieces:
                    await response.write(piece)
                await response.write_eof()
            except (PaasdError, OSError) as error:
                # What was sent cannot be taken back: only a broken connection tells that it is not all.
                _log.warning("an export of %s broke off: %s", call.request.match_info["volume"], error)
                if call.request.transport is not None:
                    call.request.transport.abort()
        return response

    async def mounts(self, call: Call) -> dict[str, Any]:
        return {
            "items": [
                {
                    "volume": mounted.volume.name,
                    "path": mounted.path,
                    "process_type": mounted.process_type,
                    "read_only": mounted.read_only,
                }
                for mounted in await self._storage.mounts(call.app)
            ]
        }

    async def mount(self, call: Call) -> dict[str, Any]:
        body: NewMount = call.body
        volume = await self._storage.get(call.actor, body.volume)
        if volume.host_path is not None:
            authorize(call.actor, Action.HOST_PATH, call.actor.organization_id)
        await self._storage.mount(
            call.actor, call.app, volume, body.path, type_=body.process_type, read_only=body.read_only
        )
        return await self.mounts(call)

    async def unmount(self, call: Call) -> dict[str, Any]:
        return {"volume": await self._storage.unmount(call.actor, call.app, call.body.path)}

    async def _volume(self, call: Call) -> Volume:
        return await self._storage.get(call.actor, call.request.match_info["volume"])

    async def _shape(self, volume: Volume, sizes: dict[str, int]) -> dict[str, Any]:
        size = sizes.get(volume.engine_name)
        return {
            "name": volume.name,
            "size": size,
            "quota": volume.quota,
            "over_quota": bool(volume.quota and size and size > volume.quota),
            "host_path": volume.host_path,
            "used": volume.made_at is not None,
            "apps": await self._storage.users(volume),
        }
