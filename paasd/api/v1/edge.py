"""How the edge treats an app's requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.app_sites import AppSites
from paasd.database import Transaction
from paasd.gateway import members
from paasd.gateway.policy import KEYS, Gateway
from paasd.identity.policy import Action
from paasd.identity.sign_ins import SignIns


class EdgeSettingsChange(Body):
    settings: dict[str, str | None]


class EdgeResource:
    def __init__(self, gateway: Gateway, sign_ins: SignIns, sites: AppSites) -> None:
        self._gateway = gateway
        self._sign_ins = sign_ins
        self._sites = sites

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
        changes: dict[str, str | None] = call.body.settings

        async def sign_out(tx: Transaction) -> None:
            if members.ON in changes:  # cookies that the app may have seen meanwhile are worth nothing afterwards
                await self._sign_ins.end_all_with(tx, call.actor, call.app)

        async def change() -> dict[str, str | None]:
            before = await self._gateway.values(call.app)
            await self._gateway.change(call.actor, call.app, changes, sign_out)
            return {key: before.get(key) for key in changes}

        await self._sites.change(call.app, change, lambda old: self._gateway.put_back(call.actor, call.app, old))
        return await self.report(call)
