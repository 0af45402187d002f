"""Removes everything of one paasd from this machine but its program and its configuration file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paasd.config import Config
from paasd.docker_engine import DockerEngine
from paasd.errors import EngineError, EngineNotFound
from paasd.route.edge import Edge
from paasd.run.firewall import Firewall

_INSTANCE = "paasd.instance"


async def stop_edge(config: Config, templates: Path) -> None:
    """End Nginx; the apps' containers go on but cannot be reached."""
    await Edge(config.edge_dir, templates, config.http).stop()


async def stop_apps(config: Config) -> int:
    """Stop the containers; a daemon that is started later starts them again. Returns how many there were."""
    engine = DockerEngine(config.docker_host)
    try:
        running = await engine.request("GET", "/containers/json", params=_of(config.label))
        timeout = config.run.stop_timeout
        stops = (
            engine.request("POST", f"/containers/{c['Id']}/stop", params={"t": timeout}, timeout=timeout + 20)
            for c in running
        )
        await asyncio.gather(*stops)
        return len(running)
    finally:
        await engine.close()


async def purge(config: Config, templates: Path, say: Callable[[str], None]) -> None:
    """The daemon must have been stopped. What is gone already is passed over, so it can be run again."""
    say("Nginx")
    await stop_edge(config, templates)
    engine = DockerEngine(config.docker_host)
    try:
        say("containers, networks and images of the apps")
        await _engine_objects(engine, config.label)
    finally:
        await engine.close()
    say("firewall rules")
    await Firewall(config).remove()
    say(str(config.data_dir))
    await asyncio.to_thread(_remove_data, config.data_dir)


async def _engine_objects(engine: DockerEngine, label: str) -> None:
    filters = _of(label)
    for container in await engine.request("GET", "/containers/json", params={"all": 1, **filters}):
        await _delete(engine, f"/containers/{container['Id']}", {"force": 1, "v": 1})
    for network in await engine.request("GET", "/networks", params=filters):
        await _delete(engine, f"/networks/{network['Id']}", {})
    for image in await engine.request("GET", "/images/json", params=filters):
        await _delete(engine, f"/images/{image['Id']}", {"force": 1})


def _of(label: str) -> dict[str, Any]:
    return {"filters": {"label": [f"{_INSTANCE}={label}"]}}


async def _delete(engine: DockerEngine, path: str, params: dict[str, int]) -> None:
    try:
        await engine.request("DELETE", path, params=params, timeout=60)
    except EngineNotFound:
        return
    except EngineError as error:
        if "is already in progress" not in error.detail:
            raise


def _remove_data(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
