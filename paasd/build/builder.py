"""Turns a checkout into an image: decide, base images, context, BuildKit, test. Tells in order what a build does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from paasd import failpoints
from paasd.build.app_images import AppImages, ImageFacts
from paasd.build.builds import BuildLog, BuildRecord, BuildRow, Builds
from paasd.build.decision import Decision, Planner, is_watched, require_config_vars
from paasd.build.disk import Disk
from paasd.build.making import Maker, Phases
from paasd.build.queue import BuildQueue
from paasd.build_settings import BuildSettings
from paasd.config import Config
from paasd.errors import Cancelled, EngineError, NothingToDeploy, PaasdError, Superseded
from paasd.models import App, Build, Checkout, Push, Release, Secret, Status
from paasd.progress import Progress

OpenCheckout = Callable[[], Awaitable[Checkout]]


class Builder:
    def __init__(
        self,
        config: Config,
        builds: Builds,
        queue: BuildQueue,
        planner: Planner,
        maker: Maker,
        images: AppImages,
        settings: BuildSettings,
        disk: Disk,
    ) -> None:
        self._config = config
        self._builds = builds
        self._queue = queue
        self._planner = planner
        self._maker = maker
        self._images = images
        self._settings = settings
        self._disk = disk

    async def request(self, app: App, push: Push) -> BuildRow:
        """Record a push as a queued build."""
        return await self._builds.request(app, push)

    def open_log(self, build: BuildRow) -> BuildLog:
        return self._builds.open_log(build)

    async def build(
        self,
        app: App,
        build: BuildRow,
        open_checkout: OpenCheckout,
        progress: Progress,
        config: Mapping[str, Secret],
        live_revision: str | None,
        begun: Callable[[], Awaitable[None]],
    ) -> Build:
        """Build when it is its turn, which `begun` is told. Raises SourceRejected, BuildFailed, DiskFull, EngineError;
        NothingToDeploy when nothing that the app watches differs from `live_revision`."""
        try:
            async with self._queue.slot(progress):
                await begun()
                await self._builds.started(app, build, self._images.name(app, build))
                await failpoints.hit("build-started")
                await self._disk.require()
                built = await self._build(app, build, await open_checkout(), progress, config, live_revision)
        except PaasdError as error:
            status = Status.CANCELLED if isinstance(error, NothingToDeploy) else Status.FAILED
            await self._builds.finished(app, build, status, reason=error.detail)
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
        await self._images.require(release)

    async def revision_of(self, release: Release | None) -> str | None:
        return await self._builds.revision(release.build_id) if release and release.build_id else None

    async def prune(self, app: App) -> None:
        """After a deployment: forget old build logs, remove old images."""
        await self._builds.prune(app, self._config.keep.builds)
        await self.prune_images()

    async def prune_images(self) -> list[str]:
        """Remove our images that no release within reach of a rollback uses; returns their names."""
        return await self._images.prune()

    async def prune_cache(self, *, everything: bool) -> int:
        """Trim the engine's build cache to its limit, or empty it; returns the bytes freed."""
        return await self._disk.prune_cache(everything=everything)

    async def forget_cache(self, app: App) -> None:
        """The app's next build starts from nothing: new caches, no reused image."""
        await self._settings.renew_cache(app)
        await self._builds.forget_inputs(app)

    async def _build(
        self,
        app: App,
        build: BuildRow,
        checkout: Checkout,
        progress: Progress,
        config: Mapping[str, Secret],
        live_revision: str | None,
    ) -> Build:
        phases = Phases()
        progress.step(f"Detecting how to build {app.name} ({build.branch}, {build.revision[:8]})")
        async with phases.timed("plan"):
            decision = await self._planner.decide(app, checkout)
            await _require_change(decision, checkout, live_revision)
            require_config_vars(decision.manifest, config, app)
        for line in decision.lines:
            progress.detail(line)
        image, record, facts = await self._image(app, build, decision, config, phases, progress)
        await self._builds.record(build, record)
        port = _port(decision, facts, self._config.run.port, progress)
        progress.detail(f"Process types: {', '.join(p.name for p in decision.process_types)}")
        return Build(
            id=build.id,
            app_id=app.id,
            number=build.number,
            revision=build.revision,
            image=image,
            process_types=decision.process_types,
            user=decision.plan.user,
            checks=decision.manifest.healthchecks,
            config_vars=decision.manifest.config_vars,
            app_json=decision.manifest.kept,
            port=port,
        )

    async def _image(
        self,
        app: App,
        build: BuildRow,
        decision: Decision,
        config: Mapping[str, Secret],
        phases: Phases,
        progress: Progress,
    ) -> tuple[str, BuildRecord, ImageFacts]:
        """The image, made now or by an earlier build of the same inputs."""
        plan = decision.plan
        async with phases.timed("base images"):
            prepared = await self._maker.prepare(app, decision, config, progress)
        record = BuildRecord(plan.buildpack, plan.versions, tuple(decision.lines), phases.seconds, prepared.inputs)
        if earlier := await self._builds.same_inputs(app, prepared.inputs):
            if (facts := await self._images.facts(earlier.image)) is not None:
                progress.step(f"Nothing changed since build {earlier.number}: using its image")
                return earlier.image, record.of(earlier.image, facts.size), facts
        progress.step(f"Building {app.name} with the buildpack {plan.buildpack}")
        await failpoints.hit("before-image")
        image = self._images.name(app, build)
        async with phases.timed("build"):
            result = await self._maker.make(app, prepared, image, progress)
        progress.detail(f"Built in {phases.seconds['build']:.1f} s")
        if prepared.test:
            async with phases.timed("test"):
                await self._maker.test(app, prepared, image, progress)
        made = await self._images.facts(image)
        if made is None:
            raise EngineError(f"the image {image} was removed behind paasd's back", hint="Push again.")
        return image, record.of(image, made.size, result), made


async def _require_change(decision: Decision, checkout: Checkout, live_revision: str | None) -> None:
    """Raises NothingToDeploy."""
    patterns = decision.value("watch-paths")
    changed = await checkout.changed_since(live_revision) if patterns and live_revision else None
    if changed is not None and not is_watched(changed, patterns):
        raise NothingToDeploy(f"nothing changed of what {decision.settings['watch-paths'].origin} watches: {patterns}")


def _port(decision: Decision, facts: ImageFacts, usual: int, progress: Progress) -> int | None:
    """$PORT of the web process: what was set, else the one port that the repository's Dockerfile exposes."""
    if chosen := decision.value("port"):
        return int(chosen)
    if not decision.plan.in_repository or not facts.ports or usual in facts.ports:
        return None
    if len(facts.ports) == 1:
        progress.detail(f"Port {facts.ports[0]}: the Dockerfile's EXPOSE")
        return facts.ports[0]
    exposed = ", ".join(map(str, facts.ports))
    progress.detail(f"The Dockerfile exposes {exposed}; web gets PORT={usual}, choose with: ports:set")
    return None
