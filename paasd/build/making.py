"""Makes images of decisions: base images first, then BuildKit, then the tests. Builds and trials share it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from paasd.build.app_images import AppImages
from paasd.build.assembly import DOCKERFILE, TEST_STAGE, base_images, build_context, build_files, digest, test_files
from paasd.build.base_images import BaseImages
from paasd.build.buildkit import BuildResult, build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.decision import Decision
from paasd.build.disk import Disk
from paasd.build_settings import BuildSettings
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.models import App, Secret
from paasd.progress import Progress


@dataclass
class Phases:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def timed(self, name: str) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 3)


@dataclass(frozen=True)
class Prepared:
    """A decision with all that BuildKit needs for it."""

    decision: Decision
    files: Mapping[str, str]
    env: Mapping[str, Secret]
    test: str
    """Command of the tests; empty without any."""
    inputs: str
    """Hash of all that goes into the image, and of the tests it has to pass."""


class Maker:
    def __init__(
        self,
        config: BuildConfig,
        engine: DockerEngine,
        buildpacks: Buildpacks,
        bases: BaseImages,
        images: AppImages,
        settings: BuildSettings,
        disk: Disk,
    ) -> None:
        self._config = config
        self._engine = engine
        self._buildpacks = buildpacks
        self._bases = bases
        self._images = images
        self._settings = settings
        self._disk = disk

    async def prepare(self, app: App, decision: Decision, config: Mapping[str, Secret], progress: Progress) -> Prepared:
        """Base images are there afterwards. Of `config` the build sees what its setting `build-env` names."""
        plan = decision.plan
        images = await base_images(self._bases, plan, progress)
        env = {name: config[name] for name in decision.value("build-env").split() if name in config}
        cache = await self._settings.cache_name(app)
        files = await build_files(self._buildpacks, self._bases, plan, images, cache, env)
        identities = {name: await self._bases.identity(full) for name, full in images.items()}
        test = decision.value("test-command")
        asked = {"test": test, "arguments": decision.value("build-args")}
        inputs = digest(decision.checkout.tree, plan, {**files, **asked}, identities)
        return Prepared(decision, files, env, test, inputs)

    async def make(self, app: App, prepared: Prepared, image: str, progress: Progress) -> BuildResult:
        """Build and tag; `image` may be empty. Raises BuildFailed, DiskFull or EngineError."""
        return await self._run(app, prepared.decision, prepared.files, image, prepared.decision.plan.target, progress)

    def held(self, result: BuildResult) -> AbstractAsyncContextManager[None]:
        """Keep what `make` gave without a name for the block, and not longer."""
        return self._images.held(result.image)

    async def test(self, app: App, prepared: Prepared, image: str, progress: Progress) -> None:
        """Run the tests beside what was built, if there are any. `image` is what `make` gave. Raises as `make` does."""
        if not prepared.test:
            return
        progress.step(f"Testing: {prepared.test}")
        decision = prepared.decision
        files = test_files(self._buildpacks, decision.plan, prepared.files, prepared.test, image, prepared.env)
        result = await self._run(app, decision, files, "", TEST_STAGE, progress)
        await self._images.discard(result.image)

    async def _run(
        self, app: App, decision: Decision, files: Mapping[str, str], image: str, target: str, progress: Progress
    ) -> BuildResult:
        async with self._disk.watched():
            return await build_image(
                self._engine,
                await build_context(decision.plan, decision.checkout, files),
                tag=image,
                dockerfile=DOCKERFILE if files else decision.plan.dockerfile,
                target=target,
                labels=self._images.labels(app),
                build_args=_arguments(decision) if decision.plan.in_repository else None,
                on_line=progress.detail,
                timeout=self._config.timeout,
                idle_timeout=self._config.idle_timeout,
            )


def _arguments(decision: Decision) -> dict[str, str]:
    pairs = (word.partition("=") for word in decision.value("build-args").split())
    return {name: value for name, _, value in pairs}
