"""Tables `volumes` and `mounts`: data that outlives releases and instances. What holds it is the engine's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from paasd import events, projects
from paasd.config import Config
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.drivers.docker_volumes import DockerVolumes
from paasd.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler
from paasd.models import Actor, App, Mount, Release
from paasd.names import chosen_name, process_type, shown
from paasd.quota_gate import Asking, Gate, unlimited

_PATH = re.compile(r"(?:/[A-Za-z0-9_.@+-]+)+")
_NOT_INSIDE = ("/proc", "/sys", "/dev", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/lib")
_NOT_OF_HOST = ("/", "/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/boot", "/root")
_REMOVE = JobType("volume.remove", Queue.CLEANUP, timeout=120, max_attempts=20)
_QUOTAS = JobType("volume.quotas", Queue.CLEANUP, timeout=300)
_QUOTAS_EVERY = 600.0
_NUMERIC_USER = re.compile(r"(\d+)(?::(\d+))?")


@dataclass(frozen=True)
class Volume:
    id: str
    organization_id: str
    project_id: str
    name: str
    engine_name: str
    made_at: float | None
    """When the engine's volume was made; None before anything mounted it."""
    host_path: str | None
    """A directory of the host in place of an engine's volume."""
    quota: int | None
    """Bytes that it should not go over."""


@dataclass(frozen=True)
class Mounted:
    """A volume at a path of an app's instances."""

    volume: Volume
    path: str
    process_type: str | None
    """None: of all process types, tasks and one-off commands too."""
    read_only: bool

    def of(self, process_type: str) -> bool:
        return self.process_type in (None, process_type)


class Storage:
    def __init__(
        self, config: Config, database: Database, jobs: Jobs, volumes: DockerVolumes, gate: Gate = unlimited
    ) -> None:
        self._config = config
        self._database = database
        self._jobs = jobs
        self._volumes = volumes
        self._gate = gate
        self._over: set[str] = set()
        """Volumes whose being over their quota was told."""

    async def create(
        self, actor: Actor, name: str, *, project: str, host_path: str | None = None, quota: int | None = None
    ) -> Volume:
        """Raises InvalidInput, QuotaExceeded, or AlreadyExists. `host_path` is for administrators: the caller has
        asked."""
        chosen_name(name)
        path = self._checked_host_path(host_path) if host_path is not None else None
        if quota is not None and quota < 1:
            raise InvalidInput("a quota is a number of bytes, such as 10g")
        volume_id, asking = new_id(), Asking(actor.organization_id, project, actor.name, writes=host_path is None)
        async with self._database.transaction() as tx, self._gate(tx, asking):
            if await tx.fetch_one(
                "SELECT 1 FROM volumes WHERE organization_id = ? AND name = ?", actor.organization_id, name
            ):
                raise AlreadyExists(f"there is a volume {name} already", hint="List them with: storage:list")
            owner = await projects.ensure(tx, actor.organization_id, project)
            await tx.execute(
                "INSERT INTO volumes (id, organization_id, project_id, name, engine_name, host_path, quota, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                volume_id,
                actor.organization_id,
                owner.id,
                name,
                self._engine_name(name),
                path,
                quota,
                now(),
            )
            await _record(tx, "volume.created", actor, name)
        return await self.get(actor, name)

    async def get(self, actor: Actor, name: str) -> Volume:
        """Raises NotFound."""
        row = await self._database.fetch_one(
            "SELECT * FROM volumes WHERE organization_id = ? AND name = ?", actor.organization_id, name
        )
        if row is None:
            raise NotFound(f"no volume named {shown(name)}", hint="List them with: storage:list")
        return _volume(row)

    async def of(self, organization_id: str) -> list[Volume]:
        rows = await self._database.fetch(
            "SELECT * FROM volumes WHERE organization_id = ? ORDER BY name", organization_id
        )
        return [_volume(row) for row in rows]

    async def all(self) -> list[Volume]:
        """Of the whole box."""
        return [_volume(row) for row in await self._database.fetch("SELECT * FROM volumes ORDER BY name")]

    async def set_quota(self, actor: Actor, volume: Volume, quota: int | None) -> Volume:
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE volumes SET quota = ? WHERE id = ?", quota, volume.id)
        return await self.get(actor, volume.name)

    async def mount(
        self, actor: Actor, app: App, volume: Volume, path: str, *, type_: str | None = None, read_only: bool = False
    ) -> None:
        """From the app's next deployment on. Raises InvalidInput, Conflict."""
        path = _checked_path(path)
        if type_ is not None:
            process_type(type_)
        if volume.project_id != app.project_id and volume.host_path is None:
            raise Conflict(
                f"the volume {volume.name} belongs to another project than {app.name}",
                hint="Volumes are shared within a project; create one for this: storage:create",
            )
        async with self._database.transaction() as tx:
            present = await tx.fetch("SELECT path FROM mounts WHERE app_id = ?", app.id)
            for row in present:
                if _overlap(path, row["path"]):
                    raise Conflict(f"{app.name} has a volume at {row['path']} already")
            await tx.execute(
                "INSERT INTO mounts (app_id, volume_id, path, process_type, read_only) VALUES (?, ?, ?, ?, ?)",
                app.id,
                volume.id,
                path,
                type_,
                int(read_only),
            )
            await _record(tx, "volume.mounted", actor, volume.name, app=app.name, path=path)

    async def unmount(self, actor: Actor, app: App, path: str) -> str:
        """From the next deployment on; returns the volume's name, whose data stays. Raises NotFound."""
        found = next((m for m in await self.mounts(app) if m.path == path.rstrip("/")), None)
        if found is None:
            raise NotFound(f"{app.name} has no volume at {shown(path)}", hint=f"Look at: storage:report {app.name}")
        async with self._database.transaction() as tx:
            await tx.execute("DELETE FROM mounts WHERE app_id = ? AND path = ?", app.id, found.path)
            await _record(tx, "volume.unmounted", actor, found.volume.name, app=app.name, path=found.path)
        return found.volume.name

    async def mounts(self, app: App) -> list[Mounted]:
        rows = await self._database.fetch(
            "SELECT volumes.*, mounts.path, mounts.process_type, mounts.read_only FROM mounts"
            " JOIN volumes ON volumes.id = mounts.volume_id WHERE mounts.app_id = ? ORDER BY path",
            app.id,
        )
        return [Mounted(_volume(row), row["path"], row["process_type"], bool(row["read_only"])) for row in rows]

    async def users(self, volume: Volume) -> list[str]:
        """Names of the apps that mount it."""
        rows = await self._database.fetch(
            "SELECT DISTINCT apps.name FROM mounts JOIN apps ON apps.id = mounts.app_id WHERE volume_id = ?"
            " ORDER BY apps.name",
            volume.id,
        )
        return [row["name"] for row in rows]

    async def ready(self, app: App, release: Release) -> list[Mounted]:
        """The app's mounts, each volume made that was never used. Raises Conflict for one that had data and is gone
        from the engine: an empty one is never put in its place."""
        found = await self.mounts(app)
        ours = [mounted for mounted in found if mounted.volume.host_path is None]
        present = await self._volumes.names() if ours else set()
        for mounted in ours:
            volume = mounted.volume
            if volume.engine_name in present:
                continue
            if volume.made_at is not None:
                raise Conflict(
                    f"the volume {volume.name} is gone from the engine, and its data with it",
                    hint=f"Bring a snapshot back: storage:restore {volume.name}, or begin with an empty one:"
                    f" storage:restore {volume.name} --empty",
                )
            await self._make(volume, release, mounted.path)
            present.add(volume.engine_name)
        return found

    async def make_empty(self, volume: Volume) -> str:
        """A new volume on the engine, not used yet; its name there."""
        name = self._engine_name(volume.name)
        await self._volumes.create(name)
        return name

    async def replace(self, actor: Actor, volume: Volume, engine_name: str | None, what: str) -> None:
        """Its data is in another volume of the engine from now on; None: it begins empty."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE volumes SET engine_name = ?, made_at = ? WHERE id = ?",
                engine_name or self._engine_name(volume.name),
                now() if engine_name else None,
                volume.id,
            )
            await self._forget(tx, volume)
            await _record(tx, "volume.restored", actor, volume.name, snapshot=what)

    async def destroy(self, actor: Actor, volume: Volume) -> None:
        """With its data. Raises Conflict while it is mounted."""
        async with self._database.transaction() as tx:
            rows = await tx.fetch(
                "SELECT DISTINCT apps.name FROM mounts JOIN apps ON apps.id = mounts.app_id WHERE volume_id = ?",
                volume.id,
            )
            if rows:
                names = ", ".join(row["name"] for row in rows)
                raise Conflict(
                    f"the volume {volume.name} is mounted by {names}",
                    hint=f"Unmount it first: storage:unmount {rows[0]['name']} <path>",
                )
            await tx.execute("DELETE FROM volumes WHERE id = ?", volume.id)
            await self._forget(tx, volume)
            await projects.remove_if_empty(tx, volume.project_id)
            await _record(tx, "volume.destroyed", actor, volume.name)

    def handlers(self) -> Sequence[Handler]:
        return [Handler(_REMOVE, self._remove), Handler(_QUOTAS, self._check_quotas, _QUOTAS_EVERY)]

    async def _check_quotas(self, job: Job) -> None:
        """Tell once of each volume that has grown over its quota."""
        limited = [volume for volume in await self.all() if volume.quota and volume.made_at]
        sizes = await self._volumes.sizes() if limited else {}
        over = {v.id: v for v in limited if v.quota and sizes.get(v.engine_name, 0) > v.quota}
        async with self._database.transaction() as tx:
            for volume_id in over.keys() - self._over:
                volume = over[volume_id]
                await events.record(
                    tx,
                    "volume.over_quota",
                    organization_id=volume.organization_id,
                    actor="paasd",
                    volume=volume.name,
                    size=sizes[volume.engine_name],
                    quota=volume.quota,
                )
        self._over = set(over)

    async def _forget(self, tx: Transaction, volume: Volume) -> None:
        """Have what the engine holds of it removed, once no instance uses that any more. Nothing else ever removes
        data: a volume that no row names may be all that is left of somebody's."""
        if volume.host_path is None:
            await self._jobs.add(tx, _REMOVE, {"name": volume.engine_name}, organization_id=volume.organization_id)

    async def _remove(self, job: Job) -> None:
        name = job.payload["name"]
        if name not in {volume.engine_name for volume in await self.all()}:
            await self._volumes.remove(name)

    def _engine_name(self, name: str) -> str:
        return f"{self._config.label}-{name}-{new_id()[:8]}"

    async def _make(self, volume: Volume, release: Release, path: str) -> None:
        await self._volumes.create(volume.engine_name)
        await self._volumes.own(volume.engine_name, release.image, path, _numeric(release.user))
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE volumes SET made_at = ? WHERE id = ?", now(), volume.id)

    def _checked_host_path(self, path: str) -> str:
        data = self._config.data_dir.absolute()
        if not _PATH.fullmatch(path) or ".." in PurePosixPath(path).parts or str(PurePosixPath(path)) != path:
            raise InvalidInput(f"{shown(path)} is no absolute path", hint="Use letters, digits, . _ - and /.")
        resolved = Path(path)
        if path in _NOT_OF_HOST or resolved.is_relative_to(data) or data.is_relative_to(resolved):
            raise InvalidInput(f"{path} is not for apps", hint="Use a directory that is made for it, as /srv/photos.")
        return path


def mounts_for(mounted: Sequence[Mounted], process_type: str) -> tuple[Mount, ...]:
    """What an instance of a process type sees."""
    return tuple(
        Mount(
            m.path,
            volume=None if m.volume.host_path else m.volume.engine_name,
            host_path=m.volume.host_path,
            read_only=m.read_only,
        )
        for m in mounted
        if m.of(process_type)
    )


def _checked_path(path: str) -> str:
    cleaned = path.rstrip("/")
    if not _PATH.fullmatch(cleaned) or {".", ".."} & set(PurePosixPath(cleaned).parts) or len(cleaned) > 200:
        raise InvalidInput(f"{shown(path)} is no absolute path", hint="For example: /app/data")
    if cleaned == "/app" or any(_overlap(cleaned, taken) for taken in _NOT_INSIDE):
        raise InvalidInput(f"a volume at {cleaned} would hide what the image needs", hint="For example: /app/data")
    return cleaned


def _overlap(one: str, other: str) -> bool:
    """Whether one path is the other or lies within it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _numeric(user: str | None) -> tuple[int, int] | None:
    found = _NUMERIC_USER.fullmatch(user or "")
    return (int(found[1]), int(found[2] or found[1])) if found else None


async def _record(tx: Transaction, type: str, actor: Actor, volume: str, app: str | None = None, **data: str) -> None:
    await events.record(
        tx, type, organization_id=actor.organization_id, actor=actor.name, app=app, volume=volume, **data
    )


def _volume(row: Row) -> Volume:
    return Volume(**{name: row[name] for name in Volume.__dataclass_fields__})
