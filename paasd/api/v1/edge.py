"""How the edge treats an app's requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.errors import InvalidSite
from paasd.gateway.policy import KEYS, Gateway
from paasd.identity.policy import Action
from paasd.lifecycle import Lifecycle


class EdgeSettingsChange(Body):
    settings: dict[str, str | None]


class EdgeResource:
    def __init__(self, gateway: Gateway, lifecycle: Lifecycle) -> None:
        self._gateway = gateway
        self._lifecycle = lifecycle

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/edge"
        return [
            Operation("GET", path, Action.APP_READ, self.report, "How the edge treats the app's requests"),
            Operation(
                "PATCH",
                path,
                Action.APP_CONFIGURE,
                self.change,
                "Set and unset (null) edge settings, in effect at once",
                EdgeSettingsChange,
            ),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        values = await self._gateway.values(call.app)
        return {
            "settings": {
                key: {"value": each.shown(values.get(key, "")), "set": key in values, "description": each.description}
                for key, each in KEYS.items()
            }
        }

    async def change(self, call: Call) -> dict[str, Any]:
        before = await self._gateway.values(call.app)
        await self._gateway.change(call.actor, call.app, call.body.settings)
        try:
            await self._lifecycle.set_site(call.app)
        except InvalidSite:
            await self._gateway.change(call.actor, call.app, {key: before.get(key) for key in call.body.settings})
            raise
        return await self.report(call)
