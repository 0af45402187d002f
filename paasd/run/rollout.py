"""Brings the instances of a release up beside the old ones, or leaves nothing of them behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from paasd import failpoints
from paasd.config import Config
from paasd.drivers.base import Driver
from paasd.errors import HealthCheckFailed, PaasdError, ReleaseTaskFailed
from paasd.models import App, InstanceSpec, Limits, ProcessType, Project, Release
from paasd.progress import Progress
from paasd.run.health import Health, check_of
from paasd.run.instances import (
    RELEASE_TASK,
    InstanceRow,
    Instances,
    command_line,
    environment,
    network_name,
    spec_of,
)

_LOG_TAIL = 30
_MAX_LINE = 16 * 1024


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


class Rollout:
    def __init__(self, driver: Driver, instances: Instances, health: Health, config: Config) -> None:
        self._driver = driver
        self._instances = instances
        self._health = health
        self._config = config

    @asynccontextmanager
    async def started(self, launch: Launch, progress: Progress) -> AsyncIterator[None]:
        """Start and check all instances at once within one budget. Inside the block they are healthy; when it, or
        anything before it, fails, they are removed again."""
        try:
            await self._start_all(launch, progress)
            yield
        except BaseException:
            await asyncio.shield(self.remove(launch.rows))
            raise

    async def _start_all(self, launch: Launch, progress: Progress) -> None:
        deadline = time.monotonic() + self._config.run.start_timeout
        specs = [
            spec_of(launch.app, launch.project, launch.release, row, self._config, launch.url) for row in launch.rows
        ]

        async def bring_up(row: InstanceRow, spec: InstanceSpec) -> None:
            await self._driver.start(spec)
            await failpoints.hit("instance-started")
            check = check_of(launch.release, row.process_type, self._config.run.port)
            seconds = await self._health.wait(launch.app, row, check, launch.host, deadline)
            progress.detail(f"{row.process_type}.{row.number} is healthy after {seconds:.1f} s")

        try:
            async with asyncio.TaskGroup() as group:
                for row, spec in zip(launch.rows, specs, strict=True):
                    group.create_task(bring_up(row, spec))
        except* PaasdError as errors:
            error = _first(errors)
            if isinstance(error, HealthCheckFailed):
                await self._show_logs(launch.app, launch.rows, error, progress)
            raise error from None

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

    async def release_task(self, app: App, project: Project, release: Release, url: str, progress: Progress) -> None:
        """Run the Procfile's `release:` in the new image with the new config, output live. Raises ReleaseTaskFailed."""
        task = next((p for p in release.process_types if p.name == RELEASE_TASK and p.command), None)
        if task is None:
            return
        progress.step(f"Running the release task: {task.command}")
        spec = one_off_spec(app, project, release, task, self._config, url)
        try:
            async with asyncio.timeout(self._config.run.release_timeout):
                status = await self._stream(spec, progress)
        except TimeoutError:
            raise ReleaseTaskFailed(
                f"the release task took longer than {self._config.run.release_timeout} s",
                hint="Make it shorter, or raise run.release_timeout in paasd.toml.",
            ) from None
        if status:
            raise ReleaseTaskFailed(
                f"the release task exited with status {status}", hint="Its output is above; nothing was changed."
            )

    async def _stream(self, spec: InstanceSpec, progress: Progress) -> int:
        one_off = await self._driver.one_off(spec)
        async with one_off:
            pending = b""
            while (piece := await one_off.read()) is not None:
                *lines, pending = (pending + piece[1]).split(b"\n")
                for line in lines:
                    progress.detail(line[:_MAX_LINE].decode(errors="backslashreplace"))
                pending = pending[:_MAX_LINE]
            if pending:
                progress.detail(pending.decode(errors="backslashreplace"))
            return await one_off.wait()


def one_off_spec(
    app: App, project: Project, release: Release, process: ProcessType, config: Config, url: str
) -> InstanceSpec:
    """A container for one command, beside the instances, at an address of the engine's choice."""
    return InstanceSpec(
        name=f"{config.label}-{app.name}-{release.version}-{process.name}-{time.time_ns():x}",
        app_id=app.id,
        app=app.name,
        release=release.number,
        process_type=process.name,
        index=1,
        image=release.image,
        command=command_line(process.command),
        env=environment(app, release, f"{process.name}.1", config.run, url),
        network=network_name(config.label, project),
        address=None,
        limits=Limits(config.run.memory, config.run.cpus, config.run.pids),
        user=release.user,
        stop_timeout=config.run.stop_timeout,
    )


def _first(errors: BaseExceptionGroup[PaasdError]) -> PaasdError:
    """The error to tell of: a failed check says more than what it set off. A TaskGroup raises a flat group."""
    flat = [error for error in errors.exceptions if isinstance(error, PaasdError)]
    return next((error for error in flat if isinstance(error, HealthCheckFailed)), flat[0])
