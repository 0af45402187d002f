"""Owns the images `paasd/<base>:<suite or version>`: a small file system of the distribution, and what languages need.

They are shared by every paasd on the engine. A label holds a hash of all that went into one, so that changed package
sources, certificates or recipes make it anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paasd.build.bootstrap import CA_BUNDLE, bootstrap, mmdebstrap_command
from paasd.build.buildkit import build_image
from paasd.build.context import file_entries
from paasd.build.host import Host, read_host
from paasd.build.recipes import BASE, Recipes, Reference, reference
from paasd.build.registries import host_registries
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed, EngineError, EngineNotFound, PaasdError
from paasd.progress import Progress

_TIMEOUT = 1200.0
_TAIL = 40
_HASH = "paasd.base-hash"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SSL_CERT_FILE": CA_BUNDLE,
    "REQUESTS_CA_BUNDLE": CA_BUNDLE,
    "NODE_EXTRA_CA_CERTS": CA_BUNDLE,
}

PREFIX = "paasd/"
_AGAIN_AFTER = 3600.0
"""Seconds before an outdated base image that could not be renewed is tried again."""

OnLine = Callable[[str], None]


class BaseImages:
    def __init__(self, engine: DockerEngine, config: BuildConfig, recipes: Recipes, work_dir: Path) -> None:
        self._engine = engine
        self._config = config
        self._recipes = recipes.with_registry(config.official_images)
        self._work_dir = work_dir
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._host: Host | None = None
        # They change as little as the host's settings, which are read once; every push asks for several.
        self._digests: dict[tuple[Reference, str], str] = {}
        self._ids: dict[str, str] = {}
        """What the engine called each image when it was last asked."""
        self._not_before: dict[str, float] = {}
        """When to try again, on the monotonic clock, by image."""

    async def ensure(self, name: str, progress: Progress, *, anew: bool = False) -> str:
        """The full name of the base image `name` or `name@version`, made first if it is missing, out of date or wanted
        `anew`, with all it needs. Raises NotFound and BuildFailed."""
        return await self._ensure(reference(name), progress, anew)

    async def ensure_all(self, names: Iterable[str], progress: Progress) -> dict[str, str]:
        """What `ensure` gives, by the bare name. Most pushes find everything there, so the engine is asked for all of
        them at once; an image that is current was made of what it needs."""
        host, refs = await self.host(), [reference(name) for name in names]
        if all(await asyncio.gather(*(self._is_current(ref, host) for ref in refs))):
            return {ref.name: self._image(ref, await self.suite(ref)) for ref in refs}
        return {ref.name: await self._ensure(ref, progress) for ref in refs}

    async def _is_current(self, ref: Reference, host: Host) -> bool:
        suite = await self.suite(ref)
        return await self._hash_of(self._image(ref, suite)) == self._digest(ref, suite, host)

    async def _ensure(self, ref: Reference, progress: Progress, anew: bool = False) -> str:
        host, suite = await self.host(), await self.suite(ref)
        image = self._image(ref, suite)
        needed = self._recipes.needs(ref, host.suite)
        bases = {name: await self._ensure(need, progress) for name, need in needed.items()}
        async with self._locks[image]:
            digest = self._digest(ref, suite, host)
            present = await self._hash_of(image)
            if present == digest and not anew:
                return image
            root = os.geteuid() == 0
            if ref.name == BASE and suite == host.suite and not root:
                return _without_root(image, present, progress)
            if not anew and present is not None and time.monotonic() < self._not_before.get(image, 0):
                return image
            progress.step(f"Making the base image {image} (only once, takes a minute)")
            try:
                with _shown_on_failure(progress) as on_line:
                    if ref.name != BASE:
                        await self._build(ref, bases, image, digest, anew, on_line)
                    elif root:
                        await self._bootstrap(suite, image, digest, on_line)
                    else:
                        await self._bootstrap_inside(suite, image, digest, progress, on_line)
            except PaasdError as error:
                if present is None or anew:
                    raise
                self._not_before[image] = time.monotonic() + _AGAIN_AFTER
                progress.warn(f"{image} could not be renewed, so the one that is there is used: {error.detail}")
            self._ids.pop(image, None)
        return image

    def names(self) -> list[str]:
        return self._recipes.names()

    async def host(self) -> Host:
        if self._host is None:
            self._host = await read_host(self._config)
        return self._host

    async def suite(self, ref: Reference | str) -> str:
        """The suite of the distribution a base image is made of."""
        host = await self.host()
        return self._recipes.suite(reference(ref) if isinstance(ref, str) else ref, host.suite)

    async def state(self, name: str) -> str:
        """`missing`, `stale` (made from other package sources or certificates than the host has now) or `current`."""
        host, ref = await self.host(), reference(name)
        suite = await self.suite(ref)
        present = await self._hash_of(self._image(ref, suite))
        if present is None:
            return "missing"
        return "current" if present == self._digest(ref, suite, host) else "stale"

    async def package_files(self, name: str) -> dict[str, str]:
        """Files for the context of a build that starts from base image `name` and installs packages of its suite."""
        host = await self.host()
        return _package_files(host, await self.suite(name))

    def _image(self, ref: Reference, suite: str) -> str:
        recipe = self._recipes.get(ref)
        return f"{PREFIX}{ref.name}:{ref.version if recipe.versioned else suite}"

    def _digest(self, ref: Reference, suite: str, host: Host) -> str:
        """Of all that goes into an image, and into those it needs."""
        if (ref, suite) not in self._digests:
            self._digests[ref, suite] = self._new_digest(ref, suite, host)
        return self._digests[ref, suite]

    def _new_digest(self, ref: Reference, suite: str, host: Host) -> str:
        if ref.name == BASE:
            command = mmdebstrap_command(suite, Path("/"), ca_bundle=host.ca_bundle)
            facts: list[Any] = [command, host.packages(suite).sources, host.apt_conf, host.ca_digest, _ENVIRONMENT]
        else:
            needs = self._recipes.needs(ref, host.suite)
            facts = [self._recipes.dockerfile(ref, dict.fromkeys(needs, ""), suite)]
            if self._recipes.official_image(ref, suite):
                facts.append(host.ca_digest)
            facts += [self._digest(need, self._recipes.suite(need, host.suite), host) for need in needs.values()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    async def identity(self, image: str) -> str:
        """What changes when a base image is made anew."""
        if image not in self._ids:
            await self._inspect(image)
        return self._ids.get(image, "")

    async def _hash_of(self, image: str) -> str | None:
        found = await self._inspect(image)
        return (found["Config"]["Labels"] or {}).get(_HASH, "") if found else None

    async def _inspect(self, image: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.request("GET", f"/images/{image}/json")
        except EngineNotFound:
            self._ids.pop(image, None)
            return None
        self._ids[image] = str(found["Id"])
        return found

    async def _bootstrap(self, suite: str, image: str, digest: str, on_line: OnLine) -> None:
        host = await self.host()
        packages = host.packages(suite)
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="base-", dir=self._work_dir) as name:
            folder = Path(name)
            (folder / "apt.conf").write_text(host.apt_conf)
            (folder / "host.sources").write_text(packages.sources)
            (folder / "paasd.sources").write_text(packages.public_sources)
            command = mmdebstrap_command(suite, folder, ca_bundle=host.ca_bundle)
            try:
                async with asyncio.timeout(_TIMEOUT), bootstrap(command, folder, on_line) as run:
                    made = await self._import(run.tar(), {"paasd.base": BASE, _HASH: digest})
            except TimeoutError:
                raise BuildFailed(f"the base image {image} was not made within {_TIMEOUT:g} s") from None
        repository, _, tag = image.partition(":")
        await self._engine.request("POST", f"/images/{made}/tag", params={"repo": repository, "tag": tag})

    async def _bootstrap_inside(self, suite: str, image: str, digest: str, progress: Progress, on_line: OnLine) -> None:
        """Another suite than the host's, made in a build on the host's own base image: that needs no root."""
        host = await self.host()
        maker = await self._ensure(Reference(BASE, host.suite), progress)
        packages = host.packages(suite)
        command = mmdebstrap_command(
            suite, Path("/context"), ca_bundle=CA_BUNDLE if host.ca_bundle else "", inside="/target"
        )
        files = {
            "Dockerfile": _inside_dockerfile(maker, command),
            "apt.conf": host.apt_conf,
            "maker.sources": host.packages(host.suite).image_sources,
            "host.sources": packages.image_sources,
            "paasd.sources": packages.public_sources,
        }
        await self._run(files, image, {"paasd.base": BASE, _HASH: digest}, on_line)

    async def _import(self, tar: AsyncIterator[bytes], labels: Mapping[str, str]) -> str:
        """Untagged, so that a file system that breaks off never becomes a base image."""
        changes = [f"ENV {key}={value}" for key, value in _ENVIRONMENT.items()]
        changes += [f"LABEL {key}={value}" for key, value in labels.items()]
        params = [("fromSrc", "-"), *(("changes", change) for change in changes)]
        async with self._engine.stream("POST", "/images/create", params=params, data=tar, open_timeout=None) as stream:
            answers = [answer async for answer in stream.json_lines()]
        if not answers or "error" in answers[-1]:
            raise EngineError(f"the container engine did not import the base image: {answers[-1:]}")
        return str(answers[-1]["status"])

    async def _build(
        self, ref: Reference, bases: Mapping[str, str], image: str, digest: str, anew: bool, on_line: OnLine
    ) -> None:
        host, suite = await self.host(), await self.suite(ref)
        official = self._recipes.official_image(ref, suite)
        files = {
            "Dockerfile": self._recipes.dockerfile(ref, bases, suite, bool(official and host.ca_bundle)),
            **_package_files(host, suite),
            **await asyncio.to_thread(host_registries),
        }
        if official and host.ca_bundle:
            files["ca.crt"] = await asyncio.to_thread(Path(host.ca_bundle).read_text)
        try:
            await self._run(files, image, {"paasd.base": ref.name, _HASH: digest}, on_line, anew=anew)
        except BuildFailed as error:
            if official:
                raise self._no_official(ref, official, error) from error
            if ref.version:
                error.hint = f"Is there a version {ref.version} for {suite}? Choose another one, or try again later."
            raise

    def _no_official(self, ref: Reference, image: str, error: BuildFailed) -> BuildFailed:
        versions = ", ".join(self._recipes.get(ref).suites)
        failed = BuildFailed(
            f"{ref.name} {ref.version} is none of the versions made here ({versions}), and its official image {image}"
            f" could not be used: {error.detail}",
            hint=f"Choose one of {versions}, or check the registry in build.official_images"
            f" ({self._config.official_images}) with: docker pull {image}",
        )
        failed.log_tail = error.log_tail
        return failed

    async def _run(
        self, files: Mapping[str, str], image: str, labels: Mapping[str, str], on_line: OnLine, *, anew: bool = False
    ) -> None:
        await build_image(
            self._engine,
            file_entries(files, end=True),
            tag=image,
            labels=labels,
            no_cache=anew,
            on_line=on_line,
            timeout=_TIMEOUT,
            idle_timeout=self._config.idle_timeout,
        )


def _package_files(host: Host, suite: str) -> dict[str, str]:
    return {"apt.conf": host.apt_conf, "paasd.sources": host.packages(suite).image_sources}


def _inside_dockerfile(maker: str, command: list[str]) -> str:
    fetch = (
        "--mount=type=bind,source=apt.conf,target=/etc/apt/apt.conf.d/99paasd"
        " --mount=type=bind,source=maker.sources,target=/etc/apt/sources.list.d/paasd.sources"
    )
    environ = " ".join(f"{key}={value}" for key, value in _ENVIRONMENT.items())
    return (
        f"FROM {maker} AS maker\n"
        f"RUN {fetch} apt-get update -qq && apt-get install -qq -y --no-install-recommends mmdebstrap\n"
        f"RUN --mount=type=bind,source=.,target=/context {json.dumps(command)}\n"
        "FROM scratch\n"
        "COPY --from=maker /target /\n"
        f"ENV {environ}\n"
    )


@contextmanager
def _shown_on_failure(progress: Progress) -> Iterator[OnLine]:
    """What hundreds of packages print interests nobody, unless it goes wrong: then the end of it."""
    lines: deque[str] = deque(maxlen=_TAIL)
    try:
        yield lines.append
    except PaasdError:
        for line in lines:
            progress.detail(line)
        raise


def _without_root(image: str, present: str | None, progress: Progress) -> str:
    """Only root can lay out a file system with its owners and devices. Raises BuildFailed when there is no image."""
    command = "sudo paasd base:build"
    if present is None:
        raise BuildFailed(f"the base image {image} is missing, and only root can make it", hint=f"Run: {command}")
    progress.warn(f"{image} is older than the host's package sources or certificates; renew it with: {command}")
    return image
