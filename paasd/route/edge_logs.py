"""The edge's logs by app: requests of apps that have them logged, and what Nginx's error log says of an app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from paasd.route.access_logs import AccessLogs
from paasd.route.error_log import Since, lines_of
from paasd.route.live_table import LiveTable
from paasd.route.log_reading import follow, last_lines


class EdgeLogs:
    """Lines as they are in the files."""

    def __init__(self, access: AccessLogs, error_log: Path, hosts: LiveTable) -> None:
        self.access = access
        self._error_log = error_log
        self._hosts = hosts

    async def accesses(self, app: str, most: int) -> list[bytes]:
        """The last ones, oldest first."""
        return await asyncio.to_thread(last_lines, self.access.path(app), most)

    def follow_accesses(self, app: str, most: int) -> AsyncGenerator[bytes, None]:
        """The last ones, then new ones as they come; close it."""
        return follow(self.access.path(app), most)

    async def errors(self, app: str, since: Since, most: int) -> list[bytes]:
        wanted = lines_of(app, await self._hosts.live(), since)
        return await asyncio.to_thread(last_lines, self._error_log, most, wanted)

    async def follow_errors(self, app: str, since: Since, most: int) -> AsyncGenerator[bytes, None]:
        return follow(self._error_log, most, lines_of(app, await self._hosts.live(), since))
