"""The container engine: does it answer, can it limit, is it known to be vulnerable, are the base images there?"""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

from paasd.build.base_images import BaseImages
from paasd.build.buildkit import build_image
from paasd.build.buildpacks import Buildpacks
from paasd.build.context import file_entries
from paasd.build.limits import MEND, limits_of, missing_limits
from paasd.build.recipes import BASE
from paasd.config import Config
from paasd.docker_engine import DockerEngine, negotiated
from paasd.doctor.finding import Finding, fail, ok, warn
from paasd.doctor.host import space
from paasd.errors import EngineNotFound, EngineUnavailable, PaasdError

_START = "Start it: systemctl start docker (without systemd: dockerd), and see who may use its socket."
_FLOORS = (
    ("runc", (1, 1, 12), "CVE-2024-21626"),
    ("runc", (1, 2, 8), "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"),
    ("Docker", (29, 3, 1), "CVE-2026-34040, CVE-2026-42306, CVE-2026-41568"),
    ("Docker", (29, 5, 1), "CVE-2026-41567"),
)
"""Component, first version without the weakness, what it is."""
_BUILD_TIMEOUT = 20.0
_INTERFACES = Path("/sys/class/net")
_CGROUP_DRIVER = (
    'Put {"exec-opts": ["native.cgroupdriver=cgroupfs"]} into /etc/docker/daemon.json and restart the engine;'
    " then: sudo paasd builds:limit"
)
_SLOW_STORAGE = ("vfs", "devicemapper", "aufs")


async def check(config: Config, buildpacks: Path) -> list[Finding]:
    engine = DockerEngine(config.docker_host)
    try:
        version, info = await engine.version(), await engine.info()
        api = negotiated(str(version["ApiVersion"]))
        found = [ok("engine", f"Docker {version['Version']} answers at {config.docker_host}, API {api}")]
        found += [_storage(info), *_limits(info), await _build_limits(config, info), *floors(versions(version))]
        found += [space("engine disk", Path(info.get("DockerRootDir", "/var/lib/docker")), config.keep.free_bytes)]
        found += [await _bridge(engine), await _builder(engine)]
        return [*found, await _base_image(engine, config, buildpacks)]
    except EngineUnavailable as error:
        return [fail("engine", error.detail, _START)]
    finally:
        await engine.close()


def versions(version: dict[str, Any]) -> dict[str, str]:
    found = {str(part.get("Name")): str(part.get("Version")) for part in version.get("Components") or ()}
    return {"Docker": str(version["Version"]), "runc": found.get("runc", "")}


def floors(found: dict[str, str]) -> list[Finding]:
    """One warning a component. A distribution mends old versions in place, so this is a warning, never a failure."""
    findings = []
    for component, text in found.items():
        parts = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
        version = tuple(int(part) for part in parts.groups()) if parts else None
        known = [(floor, ids) for name, floor, ids in _FLOORS if name == component]
        below = [(floor, ids) for floor, ids in known if version and version < floor]
        if version is None:
            findings.append(warn(component, "its version is not known", "Look for its known weaknesses yourself."))
        elif below:
            newest = ".".join(str(part) for part in below[-1][0])
            findings.append(
                warn(
                    component,
                    f"{text} is older than {newest}: {'; '.join(ids for _, ids in below)}",
                    "Upgrade it, unless the distribution's security tracker says that its package is mended.",
                )
            )
        else:
            findings.append(ok(component, f"{text}, no known weakness"))
    return findings


def _storage(info: dict[str, Any]) -> Finding:
    driver = str(info.get("Driver"))
    if driver in _SLOW_STORAGE:
        return warn("storage", f"the engine stores images with {driver}, which is slow or abandoned", "Use overlay2.")
    return ok("storage", f"{driver}, cgroup v{info.get('CgroupVersion') or 1}")


def _limits(info: dict[str, Any]) -> list[Finding]:
    """An engine that cannot limit ignores limits in silence."""
    wanted = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
    missing = [name for name, key in wanted.items() if not info.get(key)]
    if missing:
        mend = "Boot the kernel with these cgroup controllers (cgroup_enable=memory swapaccount=1)."
        return [warn("limits", f"the engine cannot limit {', '.join(missing)} of an app", mend)]
    return [ok("limits", "memory, pids and cpu of an app can be limited")]


async def _build_limits(config: Config, info: dict[str, Any]) -> Finding:
    if not config.docker_host.startswith("unix://"):
        return warn("build limits", "the engine is elsewhere, so builds are not limited", "Use the engine of this box.")
    if info.get("CgroupDriver") == "systemd":
        text = "the engine uses the cgroup driver systemd, with which builds have no group of their own to be limited"
        return warn("build limits", text, _CGROUP_DRIVER)
    missing = await asyncio.to_thread(missing_limits, config.build)
    if missing:
        return warn("build limits", f"builds may take all {', '.join(missing)} of this machine", MEND)
    return ok("build limits", f"all builds together get {limits_of(config.build)}")


async def _bridge(engine: DockerEngine) -> Finding:
    """Builds use the engine's default network. Another engine on this machine may have removed its interface."""
    try:
        options = (await engine.request("GET", "/networks/bridge"))["Options"]
    except EngineNotFound:
        return fail("build network", "the engine has no default network", "Start dockerd without --bridge=none.")
    name = options.get("com.docker.network.bridge.name", "docker0")
    if engine.docker_host.startswith("unix://") and not (_INTERFACES / name).exists():
        text = f"the interface {name} is gone, so that builds have no network"
        return fail("build network", text, "Restart the engine: systemctl restart docker")
    return ok("build network", name)


async def _builder(engine: DockerEngine) -> Finding:
    """BuildKit of Docker 20.10 can get into a loop in which every build waits for ever (moby/buildkit issue 2526)."""
    tag = f"paasd/doctor:{secrets.token_hex(4)}"
    try:
        await build_image(
            engine,
            file_entries({"Dockerfile": f"FROM scratch\nLABEL paasd.doctor={tag}\n"}, end=True),
            tag=tag,
            on_line=lambda line: None,
            timeout=_BUILD_TIMEOUT,
            idle_timeout=_BUILD_TIMEOUT,
        )
        await engine.request("DELETE", f"/images/{tag}")
    except PaasdError as error:
        mend = "Restart the engine, apps come back with it: systemctl restart docker"
        return fail("builder", f"an empty build did not end: {error.detail}", mend)
    return ok("builder", "an empty build works")


async def _base_image(engine: DockerEngine, config: Config, buildpacks: Path) -> Finding:
    try:
        bases = BaseImages(engine, config.build, Buildpacks(buildpacks).recipes, Path("/nonexistent"))
        state = await bases.state(BASE)
    except PaasdError as error:
        return fail("base image", error.detail, error.hint)
    if state == "missing":
        return warn("base image", "there is none, so the first push takes longer", "Make it: sudo paasd base:build")
    if state == "stale":
        text = "it was made from other package sources or certificates than the host has now"
        return warn("base image", text, "Make it anew: sudo paasd base:build")
    return ok("base image", "there, and made from the host's present package sources")
