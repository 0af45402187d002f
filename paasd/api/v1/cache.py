"""What the edge keeps of an app's answers, and has to forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.app_sites import AppSites
from paasd.errors import Conflict
from paasd.gateway.cache import Purges, is_on
from paasd.gateway.policy import Gateway
from paasd.identity.policy import Action
from paasd.route.edge import Edge


class CachePurge(Body):
    paths: list[str] = Field(default_factory=list)
    """`/news`, or `/news*` for all that begins so; none for everything."""


class CacheResource:
    def __init__(self, gateway: Gateway, purges: Purges, sites: AppSites, edge: Edge) -> None:
        self._gateway = gateway
        self._purges = purges
        self._sites = sites
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/cache"
        return [
            Operation("GET", path, Action.APP_READ, self.report, "How often the edge's cache answered, and its purges"),
            Operation(
                "POST",
                f"{path}/purges",
                Action.APP_CONFIGURE,
                self.purge,
                "Have the edge forget answers, all of them or by path, in effect at once",
                CachePurge,
            ),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        name = call.app.name
        rows = await self._edge.further_counters(name)
        hits, misses = (rows[row].requests if row in rows else 0 for row in (f"{name}@hit", f"{name}@miss"))
        return {
            "app": name,
            "on": is_on(await self._gateway.values(call.app)),
            "hits": hits,
            "misses": misses,
            "ratio": round(hits / (hits + misses), 3) if hits + misses else None,
            "bytes_saved": rows[f"{name}@hit"].bytes_out if hits else 0,
            "purges": [{"path": each.path, "purged_at": instant(each.at)} for each in await self._purges.of(call.app)],
        }

    async def purge(self, call: Call) -> dict[str, Any]:
        if not is_on(await self._gateway.values(call.app)):
            raise Conflict(
                f"nothing of {call.app.name} is kept: its cache is off",
                hint=f"Switch it on with: edge:set {call.app.name} cache on",
            )
        paths = await self._purges.add(call.actor, call.app, call.body.paths)
        await self._sites.set(call.app)
        return {"paths": paths}
