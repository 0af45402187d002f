"""What containers use, read from their control groups (v1 and v2), which costs the engine nothing; the engine is asked
where the daemon does not see them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paasd.docker_engine import DockerEngine
from paasd.drivers.base import Usage
from paasd.errors import EngineError, EngineUnavailable

CGROUPS = Path("/sys/fs/cgroup")
_NANO = 1_000_000_000


@dataclass(frozen=True)
class _Source:
    """Where a container's numbers are, and its limits."""

    cpu: Path | None
    memory: Path | None
    """None: the engine is asked."""
    unified: bool
    cpus: float | None
    limit: int | None


class UsageReader:
    """Remembers where each container's numbers are until they are gone from there."""

    def __init__(self, engine: DockerEngine, root: Path = CGROUPS) -> None:
        self._engine = engine
        self._root = root
        self._sources: dict[str, _Source] = {}

    async def read(self, names: Sequence[str]) -> dict[str, Usage]:
        """Those that do not run are left out."""
        self._sources = {name: source for name, source in self._sources.items() if name in names}
        found = await asyncio.to_thread(_read_all, self._sources)
        for name in names:
            if name not in found and (usage := await self._anew(name)) is not None:
                found[name] = usage
        return found

    async def _anew(self, name: str) -> Usage | None:
        """Of one that is new, was started again, or has no groups that can be read."""
        self._sources.pop(name, None)
        try:
            container = await self._engine.request("GET", f"/containers/{name}/json")
            if not container["State"]["Running"]:
                return None
            source = await asyncio.to_thread(_source, container, self._root)
            if source.cpu is not None:
                self._sources[name] = source
                return (await asyncio.to_thread(_read_all, {name: source})).get(name)
            stats = await self._engine.request(
                "GET", f"/containers/{name}/stats", params={"stream": "false", "one-shot": "true"}
            )
            return _of_stats(stats, source)
        except EngineUnavailable:
            raise
        except EngineError:
            return None


def _source(container: Mapping[str, Any], root: Path) -> _Source:
    host = container["HostConfig"]
    cpus = host.get("NanoCpus", 0) / _NANO or None
    limit = host.get("Memory") or None
    unified = (root / "cgroup.controllers").exists()
    try:
        lines = Path(f"/proc/{container['State']['Pid']}/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        groups |= {name: path.lstrip("/") for name in controllers.split(",")}
    if unified:
        cpu = memory = root / groups.get("", "?")
    else:
        cpu, memory = (root / name / groups.get(name, "?") for name in ("cpuacct", "memory"))
    # A process that is just being started is in somebody else's group.
    ours = all(str(container["Id"]) in path.name and path.is_dir() for path in (cpu, memory))
    return _Source(cpu if ours else None, memory if ours else None, unified, cpus, limit)


def _read_all(sources: Mapping[str, _Source]) -> dict[str, Usage]:
    found = {}
    for name, source in sources.items():
        try:
            found[name] = _read(source)
        except (OSError, ValueError, KeyError):
            continue
    return found


def _read(source: _Source) -> Usage:
    assert source.cpu is not None and source.memory is not None
    facts = _facts(source.memory / "memory.stat")
    if source.unified:
        seconds = _facts(source.cpu / "cpu.stat")["usage_usec"] / 1e6
        used, spare = int((source.memory / "memory.current").read_text()), facts["inactive_file"]
    else:
        seconds = int((source.cpu / "cpuacct.usage").read_text()) / _NANO
        used, spare = int((source.memory / "memory.usage_in_bytes").read_text()), facts["total_inactive_file"]
    return Usage(seconds, source.cpus, max(0, used - spare), source.limit)


def _facts(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split(" ", 1) for line in path.read_text().splitlines())}


def _of_stats(stats: Mapping[str, Any], source: _Source) -> Usage | None:
    try:
        memory = stats["memory_stats"]
        facts = memory.get("stats", {})
        spare = facts.get("total_inactive_file", facts.get("inactive_file", 0))
        seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / _NANO
        return Usage(seconds, source.cpus, max(0, memory["usage"] - spare), source.limit)
    except KeyError:
        return None  # it has ended
