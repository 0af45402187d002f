"""Host names of an app that send every request on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.app_sites import AppSites
from paasd.identity.policy import Action
from paasd.route.domains import Domains
from paasd.route.host_names import international
from paasd.route.redirects import StoredRedirect


class NewRedirect(Body):
    host: str
    to: str
    """A host name of the app, or the beginning of a URL."""
    status: int = 301


class RedirectsResource:
    def __init__(self, domains: Domains, sites: AppSites) -> None:
        self._domains = domains
        self._sites = sites

    def operations(self) -> Sequence[Operation]:
        path = "/apps/{app}/redirects"
        return [
            Operation("GET", path, Action.APP_READ, self.listing, "List host names that redirect, and where to"),
            Operation("POST", path, Action.APP_CONFIGURE, self.add, "Redirect a host name", NewRedirect),
            Operation("DELETE", f"{path}/{{host}}", Action.APP_CONFIGURE, self.remove, "Redirect it no more"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        effective = {each.host: each.target for each in (await self._domains.site(call.app)).redirects}
        found = await self._domains.redirects.of(call.app)
        return {"items": [{**_shape(each), "url": effective.get(each.host)} for each in found]}

    async def add(self, call: Call) -> dict[str, Any]:
        body: NewRedirect = call.body
        return _shape(await self._sites.add_redirect(call.actor, call.app, body.host, body.to, body.status))

    async def remove(self, call: Call) -> dict[str, Any]:
        await self._sites.remove_redirect(call.actor, call.app, call.request.match_info["host"])
        return await self.listing(call)


def _shape(redirect: StoredRedirect) -> dict[str, Any]:
    return {
        "host": redirect.host,
        "unicode": international(redirect.host),
        "to": redirect.target,
        "status": redirect.status,
        "created_at": instant(redirect.created_at),
    }
