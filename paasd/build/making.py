"""Makes images of decisions: base images first, then BuildKit, then the tests. Builds and trials share it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from paasd.build.app_images import AppImages
from paasd.build.assembly import (
    DOCKERFILE,
    TEST_STAGE,
    base_images,
    build_context,
    build_files,
    digest,
    exports,
    test_files,
)
from paasd.build.base_images import BaseImages
from paasd.build.buildkit import BuildResult, build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.decision import Decision
from paasd.build.disk import Disk
from paasd.build.masking import masking
from paasd.build.session import Session, opened
from paasd.build_settings import BuildSettings
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed
from paasd.models import App, Secret
from paasd.progress import Progress

_CACHES = "BUILDKIT_CACHE_MOUNT_NS"


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
    cache: str
    """What the app's own caches are called."""
    env: Mapping[str, Secret]
    """The config vars that the build sees."""
    unseen: frozenset[str]
    """Names of the others."""
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
        if plan.in_repository:
            asked["secrets"] = exports(env)
        inputs = digest(decision.checkout.tree, plan, {**files, **asked}, identities)
        return Prepared(decision, files, cache, env, frozenset(config.keys() - env.keys()), test, inputs)

    async def make(self, app: App, prepared: Prepared, image: str, progress: Progress) -> BuildResult:
        """Build and tag; `image` may be empty. Raises BuildFailed, DiskFull or EngineError."""
        async with self._secrets(app, prepared, progress) as session:
            return await self._run(
                app, prepared, prepared.files, image, prepared.decision.plan.target, progress, session
            )

    def held(self, result: BuildResult) -> AbstractAsyncContextManager[None]:
        """Keep what `make` gave without a name for the block, and not longer."""
        return self._images.held(result.image)

    async def test(self, app: App, prepared: Prepared, image: str, progress: Progress) -> None:
        """Run the tests beside what was built, if there are any. `image` is what `make` gave. Raises as `make` does."""
        if not prepared.test:
            return
        progress.step(f"Testing: {prepared.test}")
        plan = prepared.decision.plan
        files = test_files(self._buildpacks, plan, prepared.files, prepared.test, image, prepared.env)
        result = await self._run(app, prepared, files, "", TEST_STAGE, progress, None)
        await self._images.discard(result.image)

    @asynccontextmanager
    async def _secrets(self, app: App, prepared: Prepared, progress: Progress) -> AsyncIterator[Session | None]:
        """What a Dockerfile mounts as secrets; no session for one that mounts none."""
        plan, checkout = prepared.decision.plan, prepared.decision.checkout
        text = await asyncio.to_thread(checkout.read, plan.dockerfile) if plan.in_repository else None
        if "secret" not in (text or "").lower():
            yield None
            return
        async with opened(self._engine, prepared.env) as session:
            try:
                yield session
            except BuildFailed as error:
                if session.missing:
                    error.hint = _missing(session.missing, app, prepared)
                raise
        if session.missing:
            progress.detail(_missing(session.missing, app, prepared))

    async def _run(
        self,
        app: App,
        prepared: Prepared,
        files: Mapping[str, str],
        image: str,
        target: str,
        progress: Progress,
        session: Session | None,
    ) -> BuildResult:
        decision = prepared.decision
        async with self._disk.watched():
            return await build_image(
                self._engine,
                await build_context(decision.plan, decision.checkout, files),
                tag=image,
                dockerfile=DOCKERFILE if files else decision.plan.dockerfile,
                target=target,
                labels=self._images.labels(app),
                build_args=_arguments(prepared) if decision.plan.in_repository else None,
                session=session,
                mask=masking(prepared.env.values()),
                on_line=progress.detail,
                timeout=self._config.timeout,
                idle_timeout=self._config.idle_timeout,
            )


def _arguments(prepared: Prepared) -> dict[str, str]:
    pairs = (word.partition("=") for word in prepared.decision.value("build-args").split())
    # Caches that a Dockerfile mounts are the app's own, however it calls them.
    return {name: value for name, _, value in pairs} | {_CACHES: f"paasd-{prepared.cache}"}


def _missing(names: Iterable[str], app: App, prepared: Prepared) -> str:
    """What to type so that the build gets the secrets it asked for."""
    listed = prepared.decision.value("build-env").split()
    said = ", ".join(names)
    unset = [name for name in names if name not in prepared.unseen]
    commands = [f"config:set --no-restart {app.name} {' '.join(f'{name}=…' for name in unset)}"] if unset else []
    if unlisted := [name for name in names if name not in listed]:
        commands.append(f"builds:set {app.name} build-env {' '.join((*listed, *unlisted))}")
    return f"The Dockerfile asks for the secret {said}, which the build does not see. Type: {'; '.join(commands)}"
