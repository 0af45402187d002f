"""Brings the instances of a release up beside the old ones, or leaves nothing of them behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from paasd import failpoints
from paasd.check_grammar import CheckType
from paasd.checks import checks_of
from paasd.config import Config
from paasd.deploy_settings import DeploySettings
from paasd.drivers.base import Driver
from paasd.errors import HealthCheckFailed, PaasdError
from paasd.models import App, InstanceSpec, Limits, Project, Release
from paasd.progress import Progress
from paasd.resources import Resources
from paasd.run.health import Health
from paasd.run.instances import InstanceRow, Instances, spec_of
from paasd.storage import Mounted, mounts_for

_LOG_TAIL = 30


Checking = Callable[[], Awaitable[None]]


async def _nothing() -> None: ...


@dataclass(frozen=True)
class Launch:
    """The instances of one release that are started together, and what they are told and asked."""

    app: App
    project: Project
    release: Release
    rows: Sequence[InstanceRow]
    url: str
    host: str
    """Host name that checks ask for."""
    settings: DeploySettings
    mounts: Sequence[Mounted] = ()


class Rollout:
    def __init__(
        self, driver: Driver, instances: Instances, health: Health, config: Config, resources: Resources
    ) -> None:
        self._driver = driver
        self._instances = instances
        self._health = health
        self._config = config
        self._resources = resources

    @asynccontextmanager
    async def started(self, launch: Launch, progress: Progress, checking: Checking) -> AsyncIterator[None]:
        """Start and check all instances at once within one budget. Inside the block they are healthy; when it, or
        anything before it, fails, they are removed again. `checking` is told when all have been started."""
        try:
            await self.bring_up(launch, progress, checking)
            yield
        except BaseException:
            await asyncio.shield(self.remove(launch.rows))
            raise

    async def bring_up(self, launch: Launch, progress: Progress, checking: Checking = _nothing) -> None:
        """The same without the removal."""
        deadline = time.monotonic() + launch.settings.start_timeout
        starting = len(launch.rows)
        resources = await self._resources.of(launch.app)

        async def bring_up(row: InstanceRow) -> None:
            nonlocal starting
            await self._driver.start(self._spec(launch, row, resources.limits(row.process_type)))
            await failpoints.hit("instance-started")
            starting -= 1
            if not starting:
                await checking()
            release, process_type = launch.release, row.process_type
            listed, port = release.checks.get(process_type, []), release.port or self._config.run.port
            checks = checks_of(listed, CheckType.STARTUP, process_type, port)
            seconds = await self._health.wait(launch.app, row, checks, launch.host, deadline, progress.warn)
            progress.detail(f"{row.process_type}.{row.number} is healthy after {seconds:.1f} s")

        try:
            async with asyncio.TaskGroup() as group:
                for row in launch.rows:
                    group.create_task(bring_up(row))
        except* PaasdError as errors:
            error = _first(errors)
            if isinstance(error, HealthCheckFailed):
                await self._show_logs(launch.app, launch.rows, error, progress)
            raise error from None

    def _spec(self, launch: Launch, row: InstanceRow, limits: Limits) -> InstanceSpec:
        stop_timeout = launch.settings.stop_timeout
        spec = spec_of(launch.app, launch.project, launch.release, row, self._config, launch.url, stop_timeout, limits)
        return replace(spec, mounts=mounts_for(launch.mounts, row.process_type))

    async def remove(self, rows: Sequence[InstanceRow]) -> None:
        """Stop at once and forget; these never had traffic. An engine that is away leaves it to the reconciler."""
        results = await asyncio.gather(*(self._driver.stop(row.name, 1) for row in rows), return_exceptions=True)
        gone = [row.name for row, result in zip(rows, results, strict=True) if not isinstance(result, BaseException)]
        await self._instances.forget(gone)

    async def _show_logs(self, app: App, rows: Sequence[InstanceRow], error: PaasdError, progress: Progress) -> None:
        failed = next((row for row in rows if error.detail.startswith(f"{row.process_type}.{row.number}")), None)
        if failed is None:
            return
        name = f"{failed.process_type}.{failed.number}"
        progress.heading(f"Start of {app.name} output ({name})")
        async for line in self._driver.logs(failed.name, tail=_LOG_TAIL):
            progress.detail(line.text)
        progress.heading(f"End of {app.name} output ({name})")


def _first(errors: BaseExceptionGroup[PaasdError]) -> PaasdError:
    """The error to tell of: a failed check says more than what it set off. A TaskGroup raises a flat group."""
    flat = [error for error in errors.exceptions if isinstance(error, PaasdError)]
    return next((error for error in flat if isinstance(error, HealthCheckFailed)), flat[0])
