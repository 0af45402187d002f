"""The engine's build cache is kept under its limit: on request, and by itself after a build."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.box import Box, eventually
from tests.engine import Engine, running_engine
from tests.images import TEST_IMAGE

pytestmark = [pytest.mark.engine, pytest.mark.slow]

_MIB = 1024**2


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


def settings(engine: Engine, limit: int) -> str:
    return (
        f'docker_host = "unix://{engine.socket}"\n[build]\ncgroup = "{engine.cgroup}/buildkit"\ncache_limit = {limit}\n'
        f'[run]\nsubnet_pool = "{engine.pool}"\nfirewall = false\n'
    )


def failing(size: int) -> dict[str, str]:
    """A build that leaves `size` MiB in the cache and no image."""
    steps = f"RUN /bin/busybox dd if=/dev/urandom of=/big bs=1M count={size}\nRUN exit 3\n"
    return {"Dockerfile": f"FROM {TEST_IMAGE}\nRUN echo {secrets.token_hex()}\n{steps}", "Procfile": "web: true\n"}


def cached(engine: Engine) -> int:
    """Bytes of cache that no image shares."""
    return sum(r["Size"] for r in engine.request("GET", "/system/df")["BuildCache"] or [] if not r["Shared"])


def test_cleanup_trims_to_the_limit_and_with_all_empties(engine: Engine, new_box: Callable[..., Box]) -> None:
    box = new_box(settings(engine, 60 * _MIB)).start()
    for _ in range(4):  # the first is followed by a trimming, the next ones come too soon after it
        assert box.push(box.repository(failing(25)), "cache").status != 0
    assert cached(engine) > 80 * _MIB
    done = box.ssh("cleanup")
    assert done.status == 0 and "MiB of build cache" in done.out
    assert 20 * _MIB < cached(engine) <= 60 * _MIB, "not the oldest alone"
    done = box.ssh("cleanup", "--all")
    assert done.status == 0
    assert cached(engine) < _MIB
    assert "Removed 0 MiB" in box.ssh("cleanup", "--all").out


def test_a_build_is_followed_by_a_trimming(engine: Engine, new_box: Callable[..., Box]) -> None:
    box = new_box(settings(engine, 10 * _MIB)).start()
    assert box.push(box.repository(failing(50)), "cache").status != 0
    eventually(lambda: cached(engine) <= 10 * _MIB)
