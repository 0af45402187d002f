"""Memory, CPU, processes and the place at the disk of all builds together: the control group that the engine puts its
build containers under.

The engine's BuildKit takes no limits with a build, but it makes each build's group below one parent (`build.cgroup`)
and leaves that parent's own limits alone. Only root can write them: `paasd builds:limit` does before the daemon starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from paasd.config import BuildConfig

_log = logging.getLogger(__name__)

CGROUPS = Path("/sys/fs/cgroup")
MEND = "Set them: sudo paasd builds:limit (install.sh has it done at each start of the daemon)"
_GIB = 1024**3
_PERIOD = 100_000
_SHARES = 256
"""A quarter of what one app's container gets when all cores are busy; `_WEIGHT` says the same to cgroup v2."""
_WEIGHT = 25
_IO_V1 = {"blkio.weight": "125", "blkio.bfq.weight": "25"}
_IO_V2 = {"io.weight": "default 25", "io.bfq.weight": "default 25"}
"""A quarter of what apps have, too. Which of these files there are is up to the kernel and its disk schedulers."""
_CONTROLLERS = ("memory", "cpu", "pids")
_IO, _IO_V2_CONTROLLER = "blkio", "io"


@dataclass(frozen=True)
class BuildLimits:
    memory: int
    cpus: float
    pids: int

    def __str__(self) -> str:
        return f"{self.memory / _GIB:.1f} GiB of memory, {self.cpus:g} cores, {self.pids} processes"


@dataclass(frozen=True)
class _Value:
    """One file of a control group and what it shall say."""

    path: Path
    wanted: str
    optional: bool = False
    """Listed only where the kernel has it."""

    def right(self) -> bool:
        try:
            found = self.path.read_text().strip()
        except OSError:
            return False
        if found == self.wanted:
            return True
        # The kernel rounds bytes down to whole pages.
        return (
            found.isdigit() and self.wanted.isdigit() and 0 <= int(self.wanted) - int(found) < os.sysconf("SC_PAGESIZE")
        )


def limits_of(config: BuildConfig) -> BuildLimits:
    """The settings; what is 0 there comes from the machine, so that apps keep a part of it."""
    total, cores = int(psutil.virtual_memory().total), float(os.cpu_count() or 1)
    left = max(total // 4, _GIB)
    return BuildLimits(
        memory=config.memory or max(total - left, total // 2),
        cpus=config.cpus or cores - 0.25,
        pids=config.pids,
    )


def limit_builds(config: BuildConfig, root: Path = CGROUPS) -> BuildLimits:
    """Blocking. Make the group if it is missing and write what is not right yet. Raises OSError, after all it could."""
    limits = limits_of(config)
    present = [folder for folder in _folders(config, root) if _unified(root) or _controller(folder, root).is_dir()]
    for folder in present:
        _make(folder, root)
    if _unified(root):
        _delegate(config, root)
    elif (root / _IO).is_dir():
        _make(root / _IO / config.cgroup, root)
    troubles = [
        f"there is no {_controller(folder, root)}" for folder in _folders(config, root) if folder not in present
    ]
    for value in _values(config, limits, root):
        if (value.path.parent in present or value.optional) and not value.right():
            try:
                value.path.write_text(value.wanted)
            except OSError as error:
                troubles.append(str(error))
    if troubles:
        raise OSError("; ".join(troubles))
    return limits


def ensure_limits(config: BuildConfig, root: Path = CGROUPS) -> None:
    """Blocking. For the daemon, which may do it only when it is root; else it says so and goes on."""
    if missing := missing_limits(config, root):
        try:
            limit_builds(config, root)
        except OSError as error:
            _log.warning("builds can take all %s of this machine: %s. %s", ", ".join(missing), error, MEND)


def missing_limits(config: BuildConfig, root: Path = CGROUPS) -> list[str]:
    """Blocking, for everybody: the names of those that are not in force."""
    wrong = (value.path.name for value in _values(config, limits_of(config), root) if not value.right())
    return sorted({name.partition(".")[0].removeprefix("blk") for name in wrong})


def _values(config: BuildConfig, limits: BuildLimits, root: Path) -> list[_Value]:
    quota = round(limits.cpus * _PERIOD)
    if _unified(root):
        folder = root / config.cgroup
        swap = [_Value(folder / "memory.swap.max", "0")] if os.path.exists(folder / "memory.swap.max") else []
        return [
            _Value(folder / "memory.max", str(limits.memory)),
            *swap,
            _Value(folder / "cpu.max", f"{quota} {_PERIOD}"),
            _Value(folder / "cpu.weight", str(_WEIGHT)),
            _Value(folder / "pids.max", str(limits.pids)),
            *_places(folder, _IO_V2),
        ]
    memory, cpu, pids = _folders(config, root)
    return [
        *_memory_v1(memory, limits.memory),
        _Value(cpu / "cpu.cfs_period_us", str(_PERIOD)),
        _Value(cpu / "cpu.cfs_quota_us", str(quota)),
        _Value(cpu / "cpu.shares", str(_SHARES)),
        _Value(pids / "pids.max", str(limits.pids)),
        *_places(root / _IO / config.cgroup, _IO_V1),
    ]


def _places(folder: Path, weights: Mapping[str, str]) -> list[_Value]:
    """Behind apps at the disk."""
    present = (name for name in weights if os.path.exists(folder / name))
    return [_Value(folder / name, weights[name], optional=True) for name in present]


def _memory_v1(folder: Path, limit: int) -> list[_Value]:
    """Memory, and memory with swap, which may never be the lower one: so when raising, it comes first."""
    memory = _Value(folder / "memory.limit_in_bytes", str(limit))
    both = _Value(folder / "memory.memsw.limit_in_bytes", str(limit))
    if not os.path.exists(both.path):  # which is False, where Path's own raises, for a group that one may not look into
        return [memory]
    return [both, memory] if limit > int(both.path.read_text()) else [memory, both]


def _folders(config: BuildConfig, root: Path) -> list[Path]:
    return [root / config.cgroup] if _unified(root) else [root / name / config.cgroup for name in _CONTROLLERS]


def _make(folder: Path, root: Path) -> None:
    """Readable for the daemon, which is not root, whatever umask this runs with: systemd's unit has 0077."""
    folder.mkdir(parents=True, exist_ok=True)
    for group in (folder, *folder.parents):
        if group == root:
            return
        mode = group.stat().st_mode
        if mode & 0o055 != 0o055:
            group.chmod(mode | 0o055)


def _controller(folder: Path, root: Path) -> Path:
    """Of cgroup v1, where it is a mount: a folder made in its place would take any limit and keep none."""
    return root / folder.relative_to(root).parts[0]


def _delegate(config: BuildConfig, root: Path) -> None:
    """In cgroup v2 a group has only the controllers that every group above it passes down."""
    folder = root
    for part in Path(config.cgroup).parts:
        passed = (folder / "cgroup.subtree_control").read_text().split()
        for name in _CONTROLLERS:
            if name not in passed:
                (folder / "cgroup.subtree_control").write_text(f"+{name}")
        with contextlib.suppress(OSError):  # a kernel may do without
            if _IO_V2_CONTROLLER not in passed:
                (folder / "cgroup.subtree_control").write_text(f"+{_IO_V2_CONTROLLER}")
        folder /= part


def _unified(root: Path) -> bool:
    return (root / "cgroup.controllers").exists()
