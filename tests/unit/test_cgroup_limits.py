"""What is written into a control group for builds, on folders that look like cgroup v1 and v2."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest

from paasd.build.limits import ensure_limits, limit_builds, limits_of, missing_limits
from paasd.config import BuildConfig

_GIB = 1024**3
_CONFIG = BuildConfig(memory=3 * _GIB, cpus=1.5, pids=99)


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    files = {
        "memory": {"memory.limit_in_bytes": 2**63 - 4096, "memory.memsw.limit_in_bytes": 2**63 - 4096},
        "cpu": {"cpu.cfs_period_us": 100_000, "cpu.cfs_quota_us": -1, "cpu.shares": 1024},
        "pids": {"pids.max": "max"},
    }
    for controller, values in files.items():
        folder = tmp_path / controller / "docker" / "buildkit"
        folder.mkdir(parents=True)
        for name, value in values.items():
            (folder / name).write_text(f"{value}\n")
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for folder in (tmp_path, tmp_path / "docker", tmp_path / "docker" / "buildkit"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("cpu io memory pids\n")
    (tmp_path / "docker" / "buildkit" / "memory.swap.max").write_text("max\n")
    return tmp_path


def test_v1(v1: Path) -> None:
    assert missing_limits(_CONFIG, v1) == ["cpu", "memory", "pids"]
    limit_builds(_CONFIG, v1)
    assert missing_limits(_CONFIG, v1) == []
    folder = v1 / "memory" / "docker" / "buildkit"
    assert {(folder / f"memory.{name}").read_text() for name in ("limit_in_bytes", "memsw.limit_in_bytes")} == {
        str(3 * _GIB)
    }
    assert (v1 / "cpu" / "docker" / "buildkit" / "cpu.cfs_quota_us").read_text() == "150000"


def test_v2(v2: Path) -> None:
    limit_builds(_CONFIG, v2)
    assert missing_limits(_CONFIG, v2) == []
    folder = v2 / "docker" / "buildkit"
    written = {path.name: path.read_text().strip() for path in folder.iterdir()}
    del written["cgroup.subtree_control"]
    assert written == {
        "memory.max": str(3 * _GIB),
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "cpu.weight": "25",
        "pids.max": "99",
    }


def test_controllers_that_a_v2_group_does_not_pass_down_are_asked_for(v2: Path) -> None:
    (v2 / "docker" / "cgroup.subtree_control").write_text("cpu io memory\n")
    limit_builds(_CONFIG, v2)
    assert (v2 / "docker" / "cgroup.subtree_control").read_text() == "+pids"
    assert (v2 / "cgroup.subtree_control").read_text() == "cpu io memory pids\n"


def test_builds_stand_behind_apps_for_cpu_and_disk_where_the_kernel_has_it(v1: Path) -> None:
    limit_builds(_CONFIG, v1)
    assert (v1 / "cpu" / "docker" / "buildkit" / "cpu.shares").read_text() == "256", "apps have 1024"
    assert not (v1 / "blkio").exists()
    folder = v1 / "blkio" / "docker" / "buildkit"
    folder.mkdir(parents=True)
    assert missing_limits(_CONFIG, v1) == []
    (folder / "blkio.bfq.weight").write_text("100\n")
    assert missing_limits(_CONFIG, v1) == ["io"]
    limit_builds(_CONFIG, v1)
    assert (folder / "blkio.bfq.weight").read_text() == "25" and missing_limits(_CONFIG, v1) == []


@pytest.mark.parametrize("name", ["io.weight", "io.bfq.weight"])
def test_builds_stand_behind_apps_at_the_disk_with_v2(v2: Path, name: str) -> None:
    file = v2 / "docker" / "buildkit" / name
    file.write_text("default 100\n")
    limit_builds(_CONFIG, v2)
    assert file.read_text() == "default 25" and missing_limits(_CONFIG, v2) == []


def test_memory_that_the_kernel_rounded_to_pages_is_right(v1: Path) -> None:
    config = BuildConfig(memory=_GIB + 5, cpus=1.0)
    limit_builds(config, v1)
    for name in ("limit_in_bytes", "memsw.limit_in_bytes"):
        (v1 / "memory" / "docker" / "buildkit" / f"memory.{name}").write_text(str(_GIB))
    assert missing_limits(config, v1) == []


def test_what_the_kernel_does_not_offer_is_said_and_the_rest_is_set(v1: Path) -> None:
    shutil.rmtree(v1 / "memory")
    with pytest.raises(OSError, match=r"there is no .*/memory"):
        limit_builds(_CONFIG, v1)
    assert not (v1 / "memory").exists()
    assert missing_limits(_CONFIG, v1) == ["memory"]


def test_a_missing_group_has_no_limits(tmp_path: Path) -> None:
    assert missing_limits(_CONFIG, tmp_path) == ["cpu", "memory", "pids"]


def test_the_groups_it_makes_are_readable_for_the_daemon_whatever_the_umask(v1: Path) -> None:
    for controller in ("memory", "cpu", "pids"):
        shutil.rmtree(v1 / controller / "docker")
    before = os.umask(0o077)
    try:
        limit_builds(_CONFIG, v1)
    finally:
        os.umask(before)
    for controller in ("memory", "cpu", "pids"):
        for folder in (v1 / controller / "docker", v1 / controller / "docker" / "buildkit"):
            assert folder.stat().st_mode & 0o777 == 0o755


def test_a_group_that_was_made_closed_is_opened(v1: Path) -> None:
    (v1 / "memory" / "docker").chmod(0o700)
    limit_builds(_CONFIG, v1)
    assert (v1 / "memory" / "docker").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("closed", ["docker", "docker/buildkit"])
def test_one_who_may_not_look_into_the_group_is_told_so_and_does_not_fail(
    v1: Path, closed: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit_builds(_CONFIG, v1)
    for folder in (v1, v1.parent, v1.parent.parent):
        folder.chmod(0o755)
    (v1 / "memory" / closed).chmod(0o700)
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        ensure_limits(_CONFIG, v1)
        missing = missing_limits(_CONFIG, v1)
    finally:
        os.seteuid(0)
    assert missing == ["memory"]
    assert "builds can take all memory of this machine" in caplog.text


@pytest.mark.parametrize(
    "total, cores, memory, cpus", [(1, 1, 0.5, 0.75), (2, 2, 1, 1.75), (4, 4, 3, 3.75), (16, 8, 12, 7.75)]
)
def test_defaults(monkeypatch: pytest.MonkeyPatch, total: int, cores: int, memory: float, cpus: float) -> None:
    class Memory:
        total: int

    found = Memory()
    found.total = total * _GIB
    monkeypatch.setattr("psutil.virtual_memory", lambda: found)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    limits = limits_of(BuildConfig())
    assert (limits.memory, limits.cpus, limits.pids) == (memory * _GIB, cpus, 4096)
