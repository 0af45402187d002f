"""Commands that a release runs once, in its own image with its own config vars, before it goes live: the Procfile's
`release:` and the scripts of app.json. What they write to their file system is discarded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from paasd.config import Config
from paasd.drivers.base import Driver
from paasd.errors import ReleaseTaskFailed
from paasd.models import App, InstanceSpec, Limits, Mount, ProcessType, Project, Release
from paasd.progress import Progress
from paasd.resources import Resources
from paasd.run.instances import RELEASE_TASK, command_line, environment, network_name

_MAX_LINE = 16 * 1024


@dataclass(frozen=True)
class Task:
    """`name` is what people know it by, `process` what its container is called."""

    name: str
    process: str
    command: str


def before_start(release: Release, *, first: bool) -> list[Task]:
    """In order: app.json's predeploy, the Procfile's release task, app.json's postdeploy on the first deployment."""
    scripts = release.app_json.get("scripts", {})
    found = [Task("predeploy script", "predeploy", scripts.get("predeploy", ""))]
    process = next((p for p in release.process_types if p.name == RELEASE_TASK), None)
    found.append(Task("release task", RELEASE_TASK, (process and process.command) or ""))
    if first:
        found.append(Task("postdeploy script of the first deployment", "postdeploy", scripts.get("postdeploy", "")))
    return [task for task in found if task.command]


def before_switch(release: Release) -> list[Task]:
    """When the new instances are healthy: app.json's `scripts.dokku.postdeploy`."""
    command = release.app_json.get("scripts", {}).get("postdeploy-always", "")
    return [Task("postdeploy script", "postdeploy", command)] if command else []


class Tasks:
    def __init__(self, driver: Driver, config: Config, resources: Resources) -> None:
        self._driver = driver
        self._config = config
        self._resources = resources

    async def run(
        self,
        app: App,
        project: Project,
        release: Release,
        url: str,
        task: Task,
        mounts: tuple[Mount, ...],
        timeout: float,
        progress: Progress,
    ) -> None:
        """Output live. Raises ReleaseTaskFailed."""
        progress.step(f"Running the {task.name}: {task.command}")
        limits = (await self._resources.of(app)).limits(task.process)
        process = ProcessType(task.process, task.command)
        spec = one_off_spec(app, project, release, process, self._config, url, limits)
        spec = replace(spec, mounts=mounts)
        try:
            async with asyncio.timeout(timeout):
                status = await self._stream(spec, progress)
        except TimeoutError:
            raise ReleaseTaskFailed(
                f"the {task.name} took longer than {timeout:g} s",
                hint=f"Make it shorter, or give it more time: deploy:set {app.name} script-timeout 30m",
            ) from None
        if status:
            raise ReleaseTaskFailed(
                f"the {task.name} exited with status {status}", hint="Its output is above; nothing was changed."
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
    app: App,
    project: Project,
    release: Release,
    process: ProcessType,
    config: Config,
    url: str,
    limits: Limits,
    number: int = 1,
) -> InstanceSpec:
    """A container for one command, beside the instances, at an address of the engine's choice."""
    return InstanceSpec(
        name=f"{config.label}-{app.name}-{release.version}-{process.name}-{time.time_ns():x}",
        app_id=app.id,
        app=app.name,
        release=release.number,
        process_type=process.name,
        index=number,
        image=release.image,
        command=command_line(process.command),
        env=environment(app, release, f"{process.name}.{number}", config.run, url),
        network=network_name(config.label, project),
        address=None,
        limits=limits,
        user=release.user,
        stop_timeout=config.run.stop_timeout,
    )
