"""Examines the box that paasd runs on, with the daemon up or down. Changes nothing and writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from paasd.config import Config
from paasd.doctor import edge, engine, files, host, network
from paasd.doctor.finding import Finding, Level, fail
from paasd.errors import PaasdError

_TIMEOUT = 60.0


async def examine(config: Config, root: Path) -> list[Finding]:
    """`root` is the directory that holds `nginx/` and `buildpacks/`."""
    groups = await asyncio.gather(
        _bounded("host", host.check(config)),
        _bounded("engine", engine.check(config, root / "buildpacks")),
        _bounded("edge", edge.check(config, root / "nginx")),
        _bounded("network", network.check(config)),
        _bounded("files", asyncio.to_thread(files.check, config)),
    )
    return [finding for group in groups for finding in group]


async def _bounded(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await check
    except TimeoutError:
        return [fail(name, f"no answer within {_TIMEOUT:.0f} s", "Is the machine overloaded?")]
    except PaasdError as error:
        return [fail(name, error.detail, error.hint)]
    except OSError as error:
        return [fail(name, str(error), "Run it as root: sudo paasd doctor")]


__all__ = ["Finding", "Level", "examine"]
