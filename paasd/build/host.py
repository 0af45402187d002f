"""What this host says about packages: where they come from, how they are fetched, whose certificates are trusted."""

from __future__ import annotations

import asyncio
import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

from paasd.build import apt_sources
from paasd.config import BuildConfig

_APT_CONFIG_TIMEOUT = 20


@dataclass(frozen=True)
class Packages:
    """Where the packages of one suite come from."""

    sources: str
    """deb822 text for programs of this host, credentials included."""
    image_sources: str
    """The same for programs inside images: only for mounting into builds."""
    public_sources: str
    """Without credentials: what images keep."""


@dataclass(frozen=True)
class Host:
    suite: str
    """The one that base images are made of unless a version needs another."""
    suites: tuple[str, ...]
    """All that can be had."""
    apt_conf: str
    ca_bundle: str
    """Path; empty when builds get none."""
    ca_digest: str
    _host_suite: str
    _sources: tuple[apt_sources.AptSource, ...]

    def packages(self, suite: str) -> Packages:
        """Raises InvalidInput when the host has no sources of the distribution."""
        sources = apt_sources.distribution_sources(self._sources, self._host_suite, suite)
        inside = apt_sources.for_images(sources)
        public = apt_sources.without_credentials(inside)
        return Packages(*(apt_sources.text_of(each) for each in (sources, inside, public)))


async def read_host(config: BuildConfig) -> Host:
    return await asyncio.to_thread(host_of, config, await apt_config_dump())


def host_of(config: BuildConfig, apt_config: str, etc: Path = Path("/etc")) -> Host:
    """Read the host's package configuration from `etc` and `apt_config`, what `apt-config dump` printed."""
    os_release = platform.freedesktop_os_release()
    suite = apt_sources.suite_for(config.suite, os_release)
    paths = [etc / "apt/sources.list", *(etc / "apt/sources.list.d").glob("*")]
    files = {str(path): path.read_text(errors="replace") for path in paths if _is_source_list(path)}
    bundle = config.ca_bundle if config.ca_bundle and Path(config.ca_bundle).is_file() else ""
    return Host(
        suite=suite,
        suites=apt_sources.suites_on(suite, os_release),
        apt_conf=apt_sources.acquire_options(apt_config),
        ca_bundle=bundle,
        ca_digest=hashlib.sha256(Path(bundle).read_bytes()).hexdigest() if bundle else "",
        _host_suite=os_release.get("VERSION_CODENAME", "sid"),
        _sources=tuple(apt_sources.parse(files)),
    )


def _is_source_list(path: Path) -> bool:
    return path.suffix in (".list", ".sources") and path.is_file()


async def apt_config_dump() -> str:
    """What apt says it is configured to do; empty without apt."""
    try:
        process = await asyncio.create_subprocess_exec(
            "apt-config", "dump", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        return ""
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _APT_CONFIG_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode(errors="replace")
