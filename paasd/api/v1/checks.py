"""Health checks of an app, beside what its app.json says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.apps import Apps
from paasd.identity.policy import Action
from paasd.names import process_type
from paasd.release import Releases
from paasd.run.health import CHECK_SETTINGS, validated


class CheckChange(Body):
    process_type: str = "web"
    settings: dict[str, str | int | float | None]


class ChecksResource:
    def __init__(self, apps: Apps, releases: Releases) -> None:
        self._apps = apps
        self._releases = releases

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/checks"
        return [
            Operation(
                "GET", path, Action.APP_READ, self.report, "Checks of the live release (app.json) and what was set"
            ),
            Operation(
                "PATCH", path, Action.APP_CONFIGURE, self.change, "Set checks for coming deployments", CheckChange
            ),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        release = await self._releases.current(call.app)
        return {
            "live": release.checks if release else {},
            "set": await self._apps.checks(call.app),
            "settings": CHECK_SETTINGS,
        }

    async def change(self, call: Call) -> dict[str, Any]:
        body: CheckChange = call.body
        name = process_type(body.process_type)
        checks = await self._apps.checks(call.app)
        merged = {**checks.get(name, {}), **validated(body.settings)}
        checks[name] = {key: value for key, value in merged.items() if value is not None}
        await self._apps.set_checks(call.app, {k: v for k, v in checks.items() if v})
        return await self.report(call)
