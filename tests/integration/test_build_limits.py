"""Builds that want to hurt the box, pushed for real: they end, the push says why, and a running app goes on answering.

On an engine of the tests' own, because the limits hold for all builds of an engine together."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from paasd.build.limits import CGROUPS, limits_of
from paasd.config import BuildConfig
from tests.box import Box, eventually
from tests.engine import Engine, running_engine
from tests.images import TEST_IMAGE
from tests.prober import Prober

pytestmark = [pytest.mark.engine, pytest.mark.slow]

_PROCFILE = "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n"
_MEMORY = 200 * 1024**2
_PIDS = 150
_LIMITS = f"memory = {_MEMORY}\npids = {_PIDS}\ncpus = 1.5\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


def settings(engine: Engine, build: str, keep: str = "") -> str:
    return (
        f'docker_host = "unix://{engine.socket}"\n[build]\ncgroup = "{engine.cgroup}/buildkit"\n{build}'
        f'[keep]\n{keep}[run]\nsubnet_pool = "{engine.pool}"\ndrain = 1.0\nstop_timeout = 2\nfirewall = false\n'
    )


@pytest.fixture(scope="module")
def limited(engine: Engine) -> Iterator[Box]:
    """With an app that runs."""
    box = Box(settings(engine, f"{_LIMITS}log_limit = 100_000\n")).start()
    try:
        done = box.push(box.repository(files()), "steady")
        assert done.status == 0, done.all
        # A new site makes Nginx close idle connections, which is not what these tests look for.
        assert box.ssh("apps:create", "hostile").status == 0
        yield box
    finally:
        box.close()


def files(*steps: str) -> dict[str, str]:
    lines = "".join(f"RUN {step}\n" for step in steps)
    nonce = secrets.token_hex()
    return {
        "Dockerfile": f"FROM {TEST_IMAGE}\nCOPY . /www/\n{lines}",
        "Procfile": _PROCFILE,
        "index.html": "here",
        "nonce": nonce,
    }


def group(engine: Engine, name: str) -> str:
    controller = name.partition(".")[0]
    return (CGROUPS / controller / engine.cgroup / "buildkit" / name).read_text()


def running(word: str) -> list[int]:
    """Processes of the machine with this word on their command line, those inside containers too."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if word in (process.info["cmdline"] or [])]


def gone(word: str) -> None:
    eventually(lambda: not running(word), 30)


def odd_time() -> str:
    """Something to sleep for that nobody else sleeps for."""
    return str(10_000 + secrets.randbelow(10**6))


def test_the_daemon_sets_the_limits_before_the_first_build(engine: Engine, limited: Box) -> None:
    assert int(group(engine, "memory.limit_in_bytes")) == _MEMORY
    assert int(group(engine, "memory.memsw.limit_in_bytes")) == _MEMORY
    assert int(group(engine, "pids.max")) == _PIDS
    assert int(group(engine, "cpu.cfs_quota_us")) == 150_000
    assert int(group(engine, "cpu.shares")) < 1024
    word = odd_time()
    push = limited.begin_push(limited.repository(files(f"sleep {word}")), "looked")
    try:
        pid = eventually(lambda: running(word))[0]
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.split(":")[1] in ("memory", "pids", "cpu"):
                assert line.split(":")[2].startswith(f"/{engine.cgroup}/buildkit/"), line
        assert limited.ssh("builds:cancel", "looked").status == 0
        push.communicate(timeout=60)
    finally:
        push.kill()
    gone(word)


def test_apps_go_before_builds(engine: Engine, limited: Box) -> None:
    """How much an app gets of the processor time that it and a build get, when both want all there is: with the builds'
    weight, and as it would be without. A share, since others may be busy on the machine."""
    cores = os.cpu_count() or 1
    loops = "while :; do :; done & " * (cores - 1) + "while :; do :; done"
    done = limited.push(limited.repository({**files(), "Procfile": f"{_PROCFILE}worker: {loops}\n"}), "busy")
    assert done.status == 0, done.all
    assert limited.ssh("resource:limit", "busy", "--process-type", "worker", "--cpu", str(cores)).status == 0
    assert limited.ssh("ps:scale", "busy", "worker=1").status == 0
    worker = next(c["Id"] for c in engine.request("GET", "/containers/json") if "-worker-" in c["Names"][0])
    groups = [CGROUPS / "cpuacct" / engine.cgroup / name / "cpuacct.usage" for name in (worker, "buildkit")]

    def share() -> float:
        before = [int(group.read_text()) for group in groups]
        time.sleep(1.5)
        app, build = (int(group.read_text()) - old for group, old in zip(groups, before, strict=True))
        return app / (app + build)

    word = odd_time()
    burning = "while :; do :; done & " * (2 * cores) + f"sleep {word}"
    push = limited.begin_push(limited.repository(files(burning)), "burner")
    shares = CGROUPS / "cpu" / engine.cgroup / "buildkit" / "cpu.shares"
    kept, levelled = list[float](), list[float]()
    try:
        eventually(lambda: running(word))
        ours = shares.read_text()
        assert int(ours) == 256
        for _ in range(2):
            kept.append(share())
            shares.write_text("1024")
            levelled.append(share())
            shares.write_text(ours)
        weight = CGROUPS / "blkio" / engine.cgroup / "buildkit" / "blkio.bfq.weight"
        assert not weight.exists() or int(weight.read_text()) == 25
        assert limited.ssh("builds:cancel", "burner").status == 0
        push.communicate(timeout=60)
    finally:
        push.kill()
        assert limited.ssh("apps:destroy", "busy", "--force").status == 0
    ratio = sum(kept) / sum(levelled)
    print(f"share of the app beside a build: {kept} with the weight, {levelled} without: {ratio:.2f} times as much")
    assert ratio > 1.2
    gone(word)


def test_a_build_that_eats_all_memory_is_killed_and_told_so(engine: Engine, limited: Box) -> None:
    with Prober(limited, "steady") as prober:
        done = limited.push(limited.repository(files("/bin/busybox tail /dev/zero")), "hostile", "+main")
    prober.assert_unbroken()
    assert done.status != 0
    assert "exit code 137" in done.all and "want of memory" in done.all and "build.memory" in done.all
    assert int(group(engine, "memory.max_usage_in_bytes")) <= _MEMORY


def test_a_fork_bomb_is_refused_more_processes(engine: Engine, limited: Box) -> None:
    word = odd_time()
    bomb = f"i=0; while [ $i -lt 1000 ]; do sleep {word} & i=$((i+1)); done"
    with Prober(limited, "steady") as prober:
        done = limited.push(limited.repository(files(bomb)), "hostile", "+main")
    prober.assert_unbroken()
    assert done.status != 0
    assert "can't fork" in done.all
    peak = CGROUPS / "pids" / engine.cgroup / "buildkit" / "pids.peak"
    assert not peak.exists() or int(peak.read_text()) <= _PIDS
    gone(word)


def test_what_a_build_leaves_running_is_gone_with_it(limited: Box) -> None:
    word = odd_time()
    step = f"(/bin/busybox setsid sleep {word} &) ; (trap '' HUP TERM; sleep {word}) & echo started"
    done = limited.push(limited.repository(files(step)), "daemons")
    assert done.status == 0, done.all
    gone(word)


def test_endless_output_is_cut_and_others_are_served(limited: Box) -> None:
    step = "/bin/busybox yes some-hundred-million-bytes | head -c 100000000"
    repository = limited.repository(files(step))
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(limited.push, repository, "talker")
        slowest = 0.0
        while not pushing.done():
            started = time.monotonic()
            assert limited.ssh("apps:list").status == 0
            slowest = max(slowest, time.monotonic() - started)
        done = pushing.result()
    assert done.status == 0, done.all[-2000:]
    assert slowest < 10
    # The engine cuts what comes too fast. Where the reader is slower still, the daemon leaves out lines, the engine's
    # words about that among them. Whoever cut says so.
    assert "log limit" in done.all or "some lines are left out" in done.all
    assert len(done.all) < 8 * 1024**2
    log = limited.ssh("builds:log", "talker").out
    assert "The log is cut here" in log and len(log) < 120_000


@pytest.mark.parametrize(
    "step, limit",
    [("sleep {0} & sleep {0}", "idle_timeout"), ("sleep {0} & while sleep 0.2; do echo x; done", "timeout")],
)
def test_a_build_that_never_ends_is_ended(engine: Engine, new_box: Callable[..., Box], step: str, limit: str) -> None:
    word = odd_time()
    build = f"{_LIMITS}timeout = 8\nidle_timeout = 3\n"
    box = new_box(settings(engine, build)).start()
    push = box.begin_push(box.repository(files(step.format(word))), "endless")
    try:
        eventually(lambda: running(word))
        output, _ = push.communicate(timeout=60)
    finally:
        push.kill()
    assert push.returncode != 0
    assert f"(build.{limit})" in output
    gone(word)


def test_a_build_may_not_ask_for_the_hosts_network_or_rights(limited: Box) -> None:
    for option in ("--network=host", "--security=insecure"):
        done = limited.push(limited.repository(files(f"{option} echo it was let")), "asks")
        assert done.status != 0, done.all
        assert "it was let" not in {line.removeprefix("remote:").strip() for line in done.all.splitlines()}


def test_doctor_sees_limits_that_are_not_in_force_and_the_command_mends_it(engine: Engine, limited: Box) -> None:
    options = ["--data-dir", str(limited.data)]

    def finding() -> str:
        return next(line for line in limited.local("doctor", *options).out.splitlines() if "build limits" in line)

    assert "OK" in finding()
    (CGROUPS / "pids" / engine.cgroup / "buildkit" / "pids.max").write_text("max")
    assert "WARN" in finding() and "pids" in finding()
    assert "builds:limit" in limited.local("doctor", *options).out
    assert limited.local("builds:limit", *options).status == 0
    assert "OK" in finding()


def test_defaults_leave_something_for_the_rest() -> None:
    limits = limits_of(BuildConfig())
    total, cores = psutil.virtual_memory().total, psutil.cpu_count()
    assert limits.memory <= max(0.75 * total, total - 2**30)
    assert 0 < limits.cpus < cores
    assert limits.pids == 4096


@pytest.fixture
def small_engine() -> Iterator[Engine]:
    with running_engine(disk=900 * 1024**2) as engine:
        yield engine


def test_a_build_that_fills_the_disk_is_ended_and_the_space_comes_back(
    small_engine: Engine, new_box: Callable[..., Box]
) -> None:
    disk = str(small_engine.root / "data")
    box = new_box(settings(small_engine, "", keep=f"free_bytes = {600 * 1024**2}\n")).start()
    assert box.push(box.repository(files()), "steady").status == 0
    assert box.ssh("apps:create", "hostile").status == 0
    before = psutil.disk_usage(disk).free
    step = "for i in 1 2 3 4 5 6 7 8 9; do /bin/busybox dd if=/dev/zero of=/big$i bs=1M count=90; sleep 1; done"
    with Prober(box, "steady") as prober:
        done = box.push(box.repository(files(step)), "hostile")
    prober.assert_unbroken()
    assert done.status != 0
    assert "the build was ended: it left only 0." in done.all and "cleanup --all" in done.all
    assert "No space left" not in done.all
    eventually(lambda: psutil.disk_usage(disk).free > before - 50 * 1024**2)
    assert box.push(box.repository(files()), "again").status == 0
