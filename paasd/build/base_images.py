"""Owns the images `paasd/<base>:<suite>`: a small file system of the distribution, and one per need of a buildpack.

They are shared by every paasd on the engine. A label holds a hash of all that went into one, so that changed package
sources, certificates or recipes make it anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paasd.build import apt_sources
from paasd.build.bootstrap import CA_BUNDLE, bootstrap, mmdebstrap_command
from paasd.build.buildkit import build_image
from paasd.build.context import file_entries
from paasd.config import BuildConfig
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed, EngineError, EngineNotFound, NotFound
from paasd.progress import Progress

BASE = "base"
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


OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Host:
    """What this host says about packages."""

    suite: str
    sources: str
    """deb822 text, credentials included: only for mounting into builds."""
    public_sources: str
    apt_conf: str
    ca_bundle: str
    """Path; empty when builds get none."""
    ca_digest: str


class BaseImages:
    """`recipes` says which distribution packages each base image adds to `base`."""

    def __init__(
        self, engine: DockerEngine, config: BuildConfig, recipes: Mapping[str, tuple[str, ...]], work_dir: Path
    ) -> None:
        self._engine = engine
        self._config = config
        self._recipes = dict(recipes)
        self._work_dir = work_dir
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._host: Host | None = None

    async def ensure(self, name: str, progress: Progress) -> str:
        """The full name of base image `name`, made first if it is missing or out of date. Raises BuildFailed."""
        host = await self._facts()
        if name != BASE and name not in self._recipes:
            raise NotFound(f"no base image is called {name}", hint=f"There are: {', '.join(self.names())}")
        image = f"paasd/{name}:{host.suite}"
        async with self._locks[name]:
            digest = self._digest(name, host)
            present = await self._hash_of(image)
            if present == digest:
                return image
            if name == BASE and os.geteuid() != 0:
                return _without_root(image, present, progress)
            base = await self.ensure(BASE, progress) if name != BASE else ""
            progress.step(f"Making the base image {image} (only once, takes a minute)")
            with _shown_on_failure(progress) as on_line:
                if name == BASE:
                    await self._bootstrap(image, digest, host, on_line)
                else:
                    await self._install(name, base, image, digest, host, on_line)
        return image

    def names(self) -> list[str]:
        return [BASE, *sorted(self._recipes)]

    async def state(self, name: str) -> str:
        """`missing`, `stale` (made from other package sources or certificates than the host has now) or `current`."""
        host = await self._facts()
        present = await self._hash_of(f"paasd/{name}:{host.suite}")
        if present is None:
            return "missing"
        return "current" if present == self._digest(name, host) else "stale"

    async def suite(self) -> str:
        return (await self._facts()).suite

    async def _facts(self) -> Host:
        if self._host is None:
            dump = await _apt_config_dump()
            self._host = await asyncio.to_thread(read_host, self._config, dump)
        return self._host

    def _digest(self, name: str, host: Host) -> str:
        command = mmdebstrap_command(host.suite, Path("/"), ca_bundle=host.ca_bundle)
        facts: list[Any] = [command, host.sources, host.apt_conf, host.ca_digest, _ENVIRONMENT]
        facts += [] if name == BASE else [install_dockerfile("", self._recipes[name], host.suite)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    async def _hash_of(self, image: str) -> str | None:
        try:
            found = await self._engine.request("GET", f"/images/{image}/json")
        except EngineNotFound:
            return None
        hash_: str | None = (found["Config"]["Labels"] or {}).get(_HASH)
        return hash_

    async def _bootstrap(self, image: str, digest: str, host: Host, on_line: OnLine) -> None:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="base-", dir=self._work_dir) as name:
            folder = Path(name)
            (folder / "apt.conf").write_text(host.apt_conf)
            (folder / "host.sources").write_text(host.sources)
            (folder / "paasd.sources").write_text(host.public_sources)
            command = mmdebstrap_command(host.suite, folder, ca_bundle=host.ca_bundle)
            try:
                async with asyncio.timeout(_TIMEOUT), bootstrap(command, folder, on_line) as run:
                    made = await self._import(run.tar(), {"paasd.base": BASE, _HASH: digest})
            except TimeoutError:
                raise BuildFailed(f"the base image {image} was not made within {_TIMEOUT:g} s") from None
        repository, _, tag = image.partition(":")
        await self._engine.request("POST", f"/images/{made}/tag", params={"repo": repository, "tag": tag})

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

    async def _install(self, name: str, base: str, image: str, digest: str, host: Host, on_line: OnLine) -> None:
        files = {
            "Dockerfile": install_dockerfile(base, self._recipes[name], host.suite),
            "apt.conf": host.apt_conf,
            "paasd.sources": host.sources,
        }
        await build_image(
            self._engine,
            file_entries(files, end=True),
            tag=image,
            labels={"paasd.base": name, _HASH: digest},
            on_line=on_line,
            timeout=_TIMEOUT,
            idle_timeout=_TIMEOUT,
        )


@contextmanager
def _shown_on_failure(progress: Progress) -> Iterator[OnLine]:
    """What hundreds of packages print interests nobody, unless it goes wrong: then the end of it."""
    lines: deque[str] = deque(maxlen=_TAIL)
    try:
        yield lines.append
    except BaseException:
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


def install_dockerfile(base: str, packages: tuple[str, ...], suite: str) -> str:
    mounts = [
        "type=bind,source=apt.conf,target=/etc/apt/apt.conf.d/99paasd",
        "type=bind,source=paasd.sources,target=/etc/apt/sources.list.d/paasd.sources",
        f"type=cache,id=paasd-apt-{suite},target=/var/cache/apt,sharing=locked",
        f"type=cache,id=paasd-apt-lists-{suite},target=/var/lib/apt/lists,sharing=locked",
    ]
    options = "".join(f" --mount={mount} \\\n   " for mount in mounts)
    command = " ".join(["apt-get install -qq -y --no-install-recommends", *packages])
    return (
        f"FROM {base}\n"
        f"RUN{options} apt-get update -qq && \\\n"
        f"    DEBIAN_FRONTEND=noninteractive {command} && \\\n"
        "    rm -rf /var/log/apt /var/log/dpkg.log\n"
    )


def read_host(config: BuildConfig, apt_config_dump: str, etc: Path = Path("/etc")) -> Host:
    """Read the host's package configuration. Raises InvalidInput when it has no sources of the distribution."""
    os_release = platform.freedesktop_os_release()
    suite = apt_sources.suite_for(config.suite, os_release)
    paths = [etc / "apt/sources.list", *(etc / "apt/sources.list.d").glob("*")]
    files = {str(path): path.read_text(errors="replace") for path in paths if _is_source_list(path)}
    host_suite = os_release.get("VERSION_CODENAME", "sid")
    sources = apt_sources.distribution_sources(apt_sources.parse(files), host_suite, suite)
    bundle = config.ca_bundle if config.ca_bundle and Path(config.ca_bundle).is_file() else ""
    return Host(
        suite=suite,
        sources=apt_sources.text_of(sources),
        public_sources=apt_sources.text_of(apt_sources.without_credentials(sources)),
        apt_conf=apt_sources.acquire_options(apt_config_dump),
        ca_bundle=bundle,
        ca_digest=hashlib.sha256(Path(bundle).read_bytes()).hexdigest() if bundle else "",
    )


def _is_source_list(path: Path) -> bool:
    return path.suffix in (".list", ".sources") and path.is_file()


async def _apt_config_dump() -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "apt-config", "dump", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        return ""
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode(errors="replace")
