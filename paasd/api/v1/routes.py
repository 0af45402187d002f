"""Paths of an app that another app of its project answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.app_sites import AppSites
from paasd.apps import Apps
from paasd.errors import InvalidInput
from paasd.identity.policy import Action
from paasd.route.domains import Domains
from paasd.route.path_routes import PathRoute


class NewRoute(Body):
    prefix: str
    app: str
    strip: bool = False
    """Whether the other app sees the path without the prefix."""


class RoutesResource:
    def __init__(self, apps: Apps, domains: Domains, sites: AppSites) -> None:
        self._apps = apps
        self._routes = domains.path_routes
        self._sites = sites

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/routes"
        return [
            Operation("GET", path, Action.APP_READ, self.listing, "List paths that other apps answer, longest first"),
            Operation("POST", path, Action.APP_CONFIGURE, self.add, "Have another app answer a path", NewRoute),
            Operation("DELETE", path, Action.APP_CONFIGURE, self.remove, "Answer the path `prefix=` itself again"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        return {"items": [_shape(each) for each in await self._routes.of(call.app)]}

    async def add(self, call: Call) -> dict[str, Any]:
        body: NewRoute = call.body
        other = await self._apps.get(call.actor.organization_id, body.app)
        return _shape(await self._sites.add_path_route(call.actor, call.app, body.prefix, other, body.strip))

    async def remove(self, call: Call) -> dict[str, Any]:
        prefix = call.request.query.get("prefix")
        if not prefix:
            raise InvalidInput("which path is not said", hint="Give it in the query: prefix=/api")
        return _shape(await self._sites.remove_path_route(call.actor, call.app, prefix))


def _shape(route: PathRoute) -> dict[str, Any]:
    return {"prefix": route.prefix, "app": route.app_name, "strip": route.strip}
