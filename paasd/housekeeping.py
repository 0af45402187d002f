"""Forgets what is older than the settings under `keep` say, and trims the build cache: jobs of the queue `cleanup`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from paasd.build.builder import Builder
from paasd.config import KeepConfig
from paasd.deployments import Deployments
from paasd.events import Events
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler
from paasd.release import Releases

_log = logging.getLogger(__name__)

_EVERY = 600.0
FORGET = JobType("housekeeping.forget", Queue.CLEANUP, timeout=300.0)
IMAGES = JobType("housekeeping.images", Queue.CLEANUP, timeout=300.0)
BUILD_CACHE = JobType("housekeeping.build-cache", Queue.CLEANUP, timeout=600.0)


class Housekeeping:
    def __init__(
        self,
        keep: KeepConfig,
        events: Events,
        jobs: Jobs,
        deployments: Deployments,
        releases: Releases,
        builder: Builder,
    ) -> None:
        self._keep = keep
        self._events = events
        self._jobs = jobs
        self._deployments = deployments
        self._releases = releases
        self._builder = builder

    def handlers(self) -> Sequence[Handler]:
        """Apart from each other, so that an engine that is away does not keep the tables from being pruned."""
        return [
            Handler(FORGET, self._forget, _EVERY),
            Handler(IMAGES, self._prune_images, _EVERY),
            Handler(BUILD_CACHE, self._trim_build_cache, _EVERY),
        ]

    async def _forget(self, job: Job) -> None:
        """Releases after the deployments that told of them."""
        await self._events.prune(self._keep.events)
        await self._jobs.prune(self._keep.jobs)
        await self._deployments.prune(self._keep.deployments, self._keep.releases)
        await self._releases.prune()

    async def _prune_images(self, job: Job) -> None:
        await self._builder.prune_images()

    async def _trim_build_cache(self, job: Job) -> None:
        if freed := await self._builder.prune_cache(everything=False):
            _log.info("%.0f MiB of old build cache were removed", freed / 1024**2)
