"""Whether an app may be deployed right now: its lock and its deploy windows."""

from __future__ import annotations

from datetime import UTC, datetime

from paasd.deploy_settings import DeploymentSettings
from paasd.deploy_windows import opens_at
from paasd.errors import Conflict
from paasd.models import App

IGNORE_WINDOWS = "ignore-windows"
"""The push option that deploys outside of the windows."""


class Admission:
    def __init__(self, settings: DeploymentSettings) -> None:
        self._settings = settings

    async def require(self, app: App, *, ignore_windows: bool = False) -> None:
        """For new code. Raises Conflict."""
        self.require_unlocked(app)
        windows = () if ignore_windows else (await self._settings.of(app)).windows
        if opens := opens_at(windows, datetime.now(UTC)):
            raise Conflict(
                f"{app.name} is not deployed at this time; its next window opens {opens:%A %Y-%m-%d %H:%M %Z}",
                hint=f"Deploy all the same with: git push -o {IGNORE_WINDOWS} … (other commands: --ignore-windows)",
            )

    def require_unlocked(self, app: App) -> None:
        """For anything that makes a release. Raises Conflict."""
        if app.lock_reason is not None:
            raise Conflict(f"{app.name} is locked: {app.lock_reason}", hint=f"Unlock it with: apps:unlock {app.name}")
