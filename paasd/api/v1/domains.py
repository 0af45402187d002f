"""Host names of an app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.identity.policy import Action
from paasd.lifecycle import Lifecycle
from paasd.route.domains import Domains


class NewDomains(Body):
    names: list[str]


class DomainsResource:
    def __init__(self, domains: Domains, lifecycle: Lifecycle) -> None:
        self._domains = domains
        self._lifecycle = lifecycle

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/domains"
        return [
            Operation("GET", path, Action.APP_READ, self.listing, "List host names, the built-in one last"),
            Operation("POST", path, Action.APP_CONFIGURE, self.add, "Add host names", NewDomains),
            Operation("DELETE", f"{path}/{{name}}", Action.APP_CONFIGURE, self.remove, "Remove a host name"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        return {"items": await self._domains.of(call.app)}

    async def add(self, call: Call) -> dict[str, Any]:
        return {"items": await self._lifecycle.add_domains(call.actor, call.app, call.body.names)}

    async def remove(self, call: Call) -> dict[str, Any]:
        name = call.request.match_info["name"]
        return {"items": await self._lifecycle.remove_domain(call.actor, call.app, name)}
