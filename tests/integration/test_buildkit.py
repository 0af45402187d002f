"""Real builds on a real engine: success, failure, time limits, cancellation, cache."""

from __future__ import annotations

import asyncio
import io
import secrets
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from paasd.build.buildkit import build_image
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed, InvalidInput
from tests.images import TEST_IMAGE, ensure_test_image

pytestmark = pytest.mark.engine
Build = Callable[..., Awaitable[tuple[str, list[str]]]]


async def context(files: dict[str, str]) -> AsyncIterator[bytes]:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    yield archive.getvalue()


def processes(word: str) -> list[str]:
    """Command lines on this machine that hold `word`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


@pytest.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    engine = DockerEngine("unix:///var/run/docker.sock")
    await ensure_test_image(engine)
    yield engine
    await engine.close()


@pytest.fixture
async def build(engine: DockerEngine) -> AsyncIterator[Build]:
    tag = f"paasd-test-{secrets.token_hex(4)}:1"

    async def run(instructions: str, **options: Any) -> tuple[str, list[str]]:
        lines: list[str] = []
        facts: dict[str, Any] = {"tag": tag, "on_line": lines.append, "timeout": 60, "idle_timeout": 60}
        files = {"Dockerfile": f"FROM {TEST_IMAGE}\n{instructions}\n"} | options.pop("files", {})
        return (await build_image(engine, context(files), **(facts | options))).image, lines

    yield run
    for image in await engine.request("GET", "/images/json", params={"filters": {"reference": [tag]}}):
        await engine.request("DELETE", f"/images/{image['Id']}", params={"force": 1})


async def test_a_build_gives_an_image_and_its_lines(engine: DockerEngine, build: Build) -> None:
    unique = secrets.token_hex(4)
    image, lines = await build(f"ARG WHO\nRUN echo hello $WHO {unique}", labels={"a": "b c"}, build_args={"WHO": "you"})
    found = await engine.request("GET", f"/images/{image}/json")
    assert found["Config"]["Labels"]["a"] == "b c"
    assert f"[2/2] RUN echo hello you {unique}" in lines
    assert f"  hello you {unique}" in lines
    assert any(line.startswith("  done in ") for line in lines)
    assert not any("internal" in line for line in lines)


async def test_a_repeated_build_is_cached(build: Build) -> None:
    instructions = f"RUN echo {secrets.token_hex(4)}"
    first, _ = await build(instructions)
    second, lines = await build(instructions)
    assert first == second
    assert f"[2/2] {instructions} CACHED" in lines


async def test_a_failed_instruction_is_named_with_its_last_lines(build: Build) -> None:
    with pytest.raises(BuildFailed) as caught:
        await build("RUN echo before\nRUN for i in a b c; do echo $i; done; exit 42\nRUN echo after")
    assert caught.value.detail == "[3/4] RUN for i in a b c; do echo $i; done; exit 42 failed with exit code 42"
    assert caught.value.log_tail == ("a", "b", "c")


async def test_a_dockerfile_that_cannot_be_read_is_a_failed_build(build: Build) -> None:
    with pytest.raises(BuildFailed, match="unknown instruction: NONSENSE"):
        await build("NONSENSE here")


async def test_an_image_that_is_nowhere_is_a_failed_build(build: Build) -> None:
    with pytest.raises(BuildFailed):
        await build("COPY --from=localhost:1/paasd-test/none:1 / /")


async def test_a_foreign_frontend_cannot_be_slipped_in(build: Build) -> None:
    with pytest.raises(InvalidInput, match="BUILDKIT_SYNTAX"):
        await build("", build_args={"BUILDKIT_SYNTAX": "evil/frontend"})


@pytest.mark.parametrize(
    ("limits", "setting"),
    [({"timeout": 1.5}, r"longer than 1\.5 s \(build\.timeout\)"), ({"idle_timeout": 1.5}, r"\(build\.idle_timeout\)")],
)
async def test_limits_of_time_end_the_build(build: Build, limits: dict[str, float], setting: str) -> None:
    seconds = f"3600.{secrets.randbelow(10**9)}"
    with pytest.raises(BuildFailed, match=setting):
        await build(f"RUN sleep {seconds}", **limits)
    await gone(seconds)


async def test_output_keeps_a_build_from_being_idle(build: Build) -> None:
    unique = secrets.token_hex(4)
    _, lines = await build(f"RUN for i in 1 2 3 4 5 6; do echo $i {unique}; sleep 0.5; done", idle_timeout=2.0)
    assert f"  6 {unique}" in lines


async def test_cancelling_ends_the_processes_of_the_build(build: Build) -> None:
    seconds = f"3600.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(build(f"RUN sleep {seconds}"))
    async with asyncio.timeout(30):
        while not processes(f"sleep {seconds}"):
            assert not task.done(), task
            await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(seconds)


async def gone(word: str) -> None:
    async with asyncio.timeout(20):
        while True:
            if not processes(f"sleep {word}"):
                return
            await asyncio.sleep(0.05)
