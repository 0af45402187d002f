"""The doctor tells an engine whose builds never end from one whose builds work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from paasd.docker_engine import DockerEngine
from paasd.doctor import engine as checks


@pytest.fixture
async def hung(tmp_path: Path) -> AsyncIterator[DockerEngine]:
    """An engine that takes a build and says nothing more, as BuildKit does once its scheduler loops."""

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41", "Version": "20.10.24"})

    async def build(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(60)
        return response

    webapp = web.Application()
    webapp.router.add_get("/version", version)
    webapp.router.add_post("/v1.41/build", build)
    webapp.router.add_post("/v1.41/build/cancel", version)
    runner = web.AppRunner(webapp, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    engine = DockerEngine(f"unix://{tmp_path}/engine.sock")
    yield engine
    await engine.close()
    await runner.cleanup()


async def test_a_hung_builder_is_a_failure_with_its_mend(hung: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_BUILD_TIMEOUT", 0.3)
    finding = await checks._builder(hung)
    assert (
        finding.check == "builder"
        and finding.level == "FAIL"
        and "did not end" in finding.text
        and "restart docker" in finding.mend
    )
