"""Turns a checkout into an image: plan, base images, context, BuildKit. Owns the images `<label>/<app>:b<number>`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from paasd import failpoints
from paasd.build import dockerfile_rules
from paasd.build.assembly import base_images, build_context
from paasd.build.base_images import BaseImages
from paasd.build.buildkit import build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.builds import BuildLog, BuildRow, Builds
from paasd.build.disk import Disk
from paasd.build.plan import Plan, Settings
from paasd.build.queue import BuildQueue
from paasd.config import Config
from paasd.database import Database
from paasd.docker_engine import DockerEngine
from paasd.errors import Cancelled, EngineError, EngineNotFound, NotFound, PaasdError, Superseded
from paasd.models import App, Build, Checkout, Manifest, Push, Release, Status
from paasd.progress import Progress

_INSTANCE = "paasd.instance"

OpenCheckout = Callable[[], Awaitable[Checkout]]


class Builder:
    def __init__(
        self,
        config: Config,
        database: Database,
        engine: DockerEngine,
        builds: Builds,
        queue: BuildQueue,
        buildpacks: Buildpacks,
        bases: BaseImages,
        disk: Disk,
    ) -> None:
        self._config = config
        self._database = database
        self._engine = engine
        self._builds = builds
        self._queue = queue
        self._buildpacks = buildpacks
        self._bases = bases
        self._disk = disk

    async def request(self, app: App, push: Push) -> BuildRow:
        """Record a push as a queued build."""
        return await self._builds.request(app, push)

    def open_log(self, build: BuildRow) -> BuildLog:
        return self._builds.open_log(build)

    async def build(self, app: App, build: BuildRow, open_checkout: OpenCheckout, progress: Progress) -> Build:
        """Build when it is its turn. Raises SourceRejected, BuildFailed, DiskFull or EngineError."""
        try:
            async with self._queue.slot(progress):
                await self._builds.started(app, build, self._image_name(app, build))
                await failpoints.hit("build-started")
                built = await self._build(app, build, await open_checkout(), progress)
        except PaasdError as error:
            await self._builds.finished(app, build, Status.FAILED, reason=error.detail)
            raise
        await self._builds.finished(app, build, Status.SUCCEEDED)
        await failpoints.hit("build-finished")
        return built

    async def settle(self, app: App, build: BuildRow, reason: PaasdError | None) -> None:
        """Give a build that was ended from outside its final status; one that has one keeps it."""
        status = Status.CANCELLED
        if isinstance(reason, Superseded):
            status = Status.SUPERSEDED
        elif reason is not None and not isinstance(reason, Cancelled):
            status = Status.FAILED
        await self._builds.finished(app, build, status, reason=reason.detail if reason else "paasd stopped")

    async def require_image(self, release: Release) -> None:
        """Raises NotFound when the image of an old release was removed."""
        try:
            await self._engine.request("GET", f"/images/{release.image}/json")
        except EngineNotFound:
            raise NotFound(
                f"the image of {release.version} is gone",
                hint=f"Only the newest {self._config.keep.releases} are kept (keep.releases). Push that commit again.",
            ) from None

    async def prune(self, app: App) -> None:
        """After a deployment: forget old build logs, remove old images."""
        await self._builds.prune(app, self._config.keep.builds)
        await self.prune_images()

    async def prune_images(self) -> list[str]:
        """Remove our images that no release within reach of a rollback uses; returns their names."""
        present = await self._own_images()
        wanted = await self._wanted_images()
        removed = []
        for name in present:
            if name not in wanted:
                try:
                    await self._engine.request("DELETE", f"/images/{name}", params={"noprune": 0})
                    removed.append(name)
                except EngineError:
                    continue  # still used by an instance that retires
        return removed

    async def prune_cache(self, *, everything: bool) -> int:
        """Trim the engine's build cache to its limit, or empty it; returns the bytes freed."""
        return await self._disk.prune_cache(everything=everything)

    async def _build(self, app: App, build: BuildRow, checkout: Checkout, progress: Progress) -> Build:
        await self._disk.require()
        manifest = await asyncio.to_thread(lambda: checkout.manifest)
        progress.step(f"Detecting how to build {app.name} ({build.branch}, {build.revision[:8]})")
        plan = await self._plan(checkout, manifest)
        if plan.in_repository:
            text = await asyncio.to_thread(checkout.read, plan.dockerfile)
            dockerfile_rules.check(text or "", self._config.label)
        for reason in plan.reasons:
            progress.detail(reason)
        if others := await asyncio.to_thread(self._buildpacks.also_fit, checkout, plan):
            progress.detail(f"{plan.buildpack} comes before {', '.join(others)}, which would fit too")
        progress.step(f"Building {app.name} with the buildpack {plan.buildpack}")
        started = time.monotonic()
        types = manifest.process_types or plan.process_types
        image = self._image_name(app, build)
        async with self._disk.watched():
            await self._run(app, plan, checkout, image, progress)
        progress.detail(
            f"Built in {time.monotonic() - started:.1f} s; process types: {', '.join(p.name for p in types)}"
        )
        return Build(
            id=build.id,
            app_id=app.id,
            number=build.number,
            revision=build.revision,
            image=image,
            process_types=types,
            user=plan.user,
            checks=manifest.healthchecks,
        )

    async def _plan(self, checkout: Checkout, manifest: Manifest) -> Plan:
        types = manifest.process_types
        settings = Settings(process_types=None if types is None else tuple(p.name for p in types))
        suites = (await self._bases.host()).suites
        return await asyncio.to_thread(
            self._buildpacks.plan,
            checkout,
            self._config.run.port,
            settings=settings,
            suites=suites,
            official=bool(self._config.build.official_images),
        )

    async def _run(self, app: App, plan: Plan, checkout: Checkout, image: str, progress: Progress) -> None:
        images = await base_images(self._bases, plan, progress)
        await failpoints.hit("before-image")
        await build_image(
            self._engine,
            await build_context(self._buildpacks, self._bases, plan, checkout, images, app.id),
            tag=image,
            dockerfile=plan.dockerfile or "Dockerfile",
            target=plan.target,
            labels={_INSTANCE: self._config.label, "paasd.app": app.id},
            on_line=progress.detail,
            timeout=self._config.build.timeout,
            idle_timeout=self._config.build.idle_timeout,
        )

    def _image_name(self, app: App, build: BuildRow) -> str:
        """The app's name is for people who look at the engine; it may have another one later."""
        return f"{self._config.label}/{app.name}-{app.id[:8]}:b{build.number}"

    async def _own_images(self) -> list[str]:
        filters = {"label": [f"{_INSTANCE}={self._config.label}"]}
        found = await self._engine.request("GET", "/images/json", params={"filters": filters})
        # Only names we gave: others may have tagged our images, or built on them, for purposes of their own.
        tags = [tag for image in found for tag in image.get("RepoTags") or []]
        return [tag for tag in tags if tag.startswith(f"{self._config.label}/")]

    async def _wanted_images(self) -> set[str]:
        """Images of the last N releases of every app that were live, of what is live or still runs, and of builds and
        releases that are on their way there."""
        rows = await self._database.fetch(
            "SELECT image FROM releases_once_live WHERE age <= ?"
            " UNION SELECT image FROM releases WHERE id IN"
            " (SELECT release_id FROM apps UNION SELECT release_id FROM instances"
            " UNION SELECT release_id FROM deployments WHERE status IN ('queued', 'running'))"
            " UNION SELECT image FROM releases WHERE created_at > unixepoch() - 3600"
            " AND NOT EXISTS (SELECT 1 FROM deployments WHERE release_id = releases.id)"
            " UNION SELECT image FROM builds WHERE status = 'running'"
            " UNION SELECT image FROM builds WHERE status = 'succeeded' AND finished_at > unixepoch() - 3600"
            " AND NOT EXISTS (SELECT 1 FROM releases WHERE build_id = builds.id)",
            self._config.keep.releases,
        )
        return {row["image"] for row in rows}
