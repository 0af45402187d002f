"""Table `disk_use`: what each project had on the disk when it was measured last. Only while somebody has a quota of
`disk`, since the engine walks through all files of all volumes for it.

Of an app's images the largest counts whole and of the others what they share with no other image. The build cache is
the box's, and logs are bounded; neither counts.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from paasd.apps import Apps
from paasd.build.app_images import AppImages, ImageSize
from paasd.config import Config
from paasd.database import Database, Row, Transaction, now
from paasd.drivers.docker_volumes import DockerVolumes
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler
from paasd.projects import Projects
from paasd.quotas import Quotas
from paasd.storage import Storage

_MEASURE = JobType("disk-use.measure", Queue.CLEANUP, timeout=600.0)
_EVERY = 600.0
_VOLUMES, _SNAPSHOTS, _IMAGES, _REPOSITORIES = range(4)
_Sizes = dict[tuple[str, str], list[int]]
"""By organization and project: volumes, snapshots, images, repositories."""


class DiskUse:
    def __init__(
        self,
        config: Config,
        database: Database,
        jobs: Jobs,
        quotas: Quotas,
        projects: Projects,
        apps: Apps,
        storage: Storage,
        volumes: DockerVolumes,
        images: AppImages,
    ) -> None:
        self._repositories = config.repositories
        self._snapshots = config.data_dir / "snapshots"
        self._database = database
        self._jobs = jobs
        self._quotas = quotas
        self._projects = projects
        self._apps = apps
        self._storage = storage
        self._volumes = volumes
        self._images = images

    def handlers(self) -> Sequence[Handler]:
        return [Handler(_MEASURE, self._measure, _EVERY)]

    async def soon(self) -> None:
        """Measure as soon as there is time for it: something large was written, or a quota was set."""
        async with self._database.transaction() as tx:
            await self._jobs.add(tx, _MEASURE, key=_MEASURE.name, moves=True, every=_EVERY)

    async def _measure(self, job: Job) -> None:
        sizes = await self._sizes() if await self._quotas.limited("disk") else {}
        organizations = {organization for organization, _ in sizes}
        async with self._database.transaction() as tx:
            known = await tx.fetch("SELECT DISTINCT organization_id FROM disk_use")
            for organization in organizations | {row["organization_id"] for row in known}:
                async with self._quotas.watched(tx, organization):
                    await _replace(tx, organization, sizes)

    async def _sizes(self) -> _Sizes:
        names = {project.id: project.name for project in await self._projects.all()}
        found: _Sizes = defaultdict(lambda: [0, 0, 0, 0])
        on_engine = await self._volumes.sizes()
        for volume in await self._storage.all():
            place = found[volume.organization_id, names.get(volume.project_id, "")]
            place[_VOLUMES] += on_engine.get(volume.engine_name, 0)
            place[_SNAPSHOTS] += await asyncio.to_thread(_size_of, self._snapshots / volume.id)
        images = await self._images_of()
        for app in await self._apps.all():
            place = found[app.organization_id, app.project]
            place[_IMAGES] += counted(images.get(app.id, []))
            place[_REPOSITORIES] += await asyncio.to_thread(_size_of, self._repositories / f"{app.id}.git")
        return found

    async def _images_of(self) -> Mapping[str, list[ImageSize]]:
        """By the app that built them."""
        sizes = await self._images.sizes()
        rows: list[Row] = await self._database.fetch(
            "SELECT DISTINCT app_id, image FROM builds WHERE image != '' AND status = 'succeeded'"
        )
        found: dict[str, list[ImageSize]] = defaultdict(list)
        for row in rows:
            if size := sizes.get(row["image"]):
                found[row["app_id"]].append(size)
        return found


def counted(images: Sequence[ImageSize]) -> int:
    """Bytes of an app's images: layers that several of them share are counted once, those of the base too."""
    largest = max(images, key=lambda image: image.whole, default=None)
    return sum(image.whole if image is largest else image.own for image in images)


async def _replace(tx: Transaction, organization_id: str, sizes: _Sizes) -> None:
    await tx.execute("DELETE FROM disk_use WHERE organization_id = ?", organization_id)
    for (organization, project), values in sizes.items():
        if organization == organization_id:
            await tx.execute("INSERT INTO disk_use VALUES (?, ?, ?, ?, ?, ?, ?)", organization, project, *values, now())


def _size_of(folder: Path) -> int:
    """Blocking. Bytes on the disk of a directory and all in it; 0 when it is missing."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += _blocks(entry)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
        except OSError:
            continue  # it went while we looked
    return total


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0
