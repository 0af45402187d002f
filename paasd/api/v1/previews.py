"""Previews of an app: an app for each branch that was pushed beside its deploy branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.identity.policy import Action
from paasd.previews import SETTINGS, Previews
from paasd.route.domains import Domains


class PreviewSettings(Body):
    settings: dict[str, str | None]


class PreviewBranch(Body):
    branch: str


class PreviewsResource:
    def __init__(self, previews: Previews, domains: Domains) -> None:
        self._previews = previews
        self._domains = domains

    def operations(self) -> Sequence[Operation]:
        path, change, deploy = "/apps/{app}/previews", Action.APP_CONFIGURE, Action.APP_DEPLOY
        return [
            Operation("GET", path, Action.APP_READ, self.report, "The app's previews, and how they are made"),
            Operation("PATCH", path, change, self.change, "Set how previews are made", PreviewSettings),
            Operation("DELETE", path, deploy, self.destroy, "Destroy the preview of a branch", PreviewBranch),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        return {
            "settings": await self._previews.report(call.app),
            "inherits": await self._previews.inherited(call.app),
            "keys": {key: known.description for key, known in SETTINGS.keys.items()},
            "items": [
                {
                    "branch": preview.branch,
                    "app": preview.app.name,
                    "release": None if preview.app.release_number is None else f"v{preview.app.release_number}",
                    "url": await self._domains.url(preview.app),
                    "expires_at": instant(preview.expires_at),
                }
                for preview in await self._previews.of(call.app)
            ],
        }

    async def change(self, call: Call) -> dict[str, Any]:
        await self._previews.settings.change(call.actor, call.app, call.body.settings)
        return await self.report(call)

    async def destroy(self, call: Call) -> dict[str, Any]:
        preview = await self._previews.destroy(call.actor, call.app, call.body.branch)
        return {"app": preview.name}
