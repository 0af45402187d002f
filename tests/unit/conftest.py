"""A real state.db in a temporary directory, with the first organization and its administrator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from paasd.apps import Apps
from paasd.config_vars import ConfigVars
from paasd.database import Database
from paasd.identity.users import Users
from paasd.models import Actor
from paasd.release import Releases
from paasd.secrets import Vault


@dataclass
class Store:
    database: Database
    users: Users
    admin: Actor
    apps: Apps
    config_vars: ConfigVars
    releases: Releases


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    database = Database(tmp_path / "state.db")
    await database.open()
    users, vault = Users(database), Vault(os.urandom(32))
    admin = await users.bootstrap()
    yield Store(database, users, admin, Apps(database), ConfigVars(database, vault), Releases(database, vault))
    await database.close()


async def until(holds: Callable[[], Awaitable[object]], seconds: float = 10) -> None:
    """Ask again and again until the answer is true; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what is asked for is in a database
            await asyncio.sleep(0.01)
