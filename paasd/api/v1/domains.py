"""Host names of an app, and the domains under which every app has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.app_sites import AppSites
from paasd.errors import InvalidInput
from paasd.identity.policy import Action
from paasd.models import App
from paasd.names import shown
from paasd.route.domains import Domains, Names
from paasd.route.host_names import international
from paasd.route.issuing import Issuing
from paasd.route.pointing import Pointings


class DomainNames(Body):
    names: list[str]


class DomainsResource:
    def __init__(self, domains: Domains, sites: AppSites, pointings: Pointings, issuing: Issuing) -> None:
        self._domains = domains
        self._sites = sites
        self._pointings = pointings
        self._issuing = issuing

    def operations(self) -> Sequence[Operation]:
        path, everywhere = "/apps/{app}/domains", "/global-domains"
        read, change, box = Action.APP_READ, Action.APP_CONFIGURE, Action.GLOBAL_DOMAIN
        return [
            Operation("GET", path, read, self.listing, "List host names, the built-in one last"),
            Operation("POST", path, change, self.add, "Add host names; `*.` stands for any label", DomainNames),
            Operation("PUT", path, change, self.replace, "Set the app's own host names", DomainNames),
            Operation(
                "GET",
                f"{path}/report",
                read,
                self.report,
                "What each host name is and where DNS says it points; `name=` for some, several times",
            ),
            Operation("DELETE", f"{path}/{{name}}", change, self.remove, "Remove a host name"),
            Operation("GET", everywhere, read, self.everywhere, "Domains under which every app has its name"),
            Operation("POST", everywhere, box, self.add_everywhere, "Add such domains", DomainNames),
            Operation("PUT", everywhere, box, self.replace_everywhere, "Set them", DomainNames),
            Operation("DELETE", f"{everywhere}/{{name}}", box, self.remove_everywhere, "Remove one"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        return await self._listed(call.app)

    async def add(self, call: Call) -> dict[str, Any]:
        done = await self._sites.add_domains(call.actor, call.app, call.body.names)
        return {**await self._listed(call.app), "added": list(done.added)}

    async def replace(self, call: Call) -> dict[str, Any]:
        done = await self._sites.set_domains(call.actor, call.app, call.body.names)
        return {**await self._listed(call.app), "added": list(done.added), "removed": list(done.removed)}

    async def remove(self, call: Call) -> dict[str, Any]:
        await self._sites.remove_domains(call.actor, call.app, [call.request.match_info["name"]])
        return await self._listed(call.app)

    async def _listed(self, app: App) -> dict[str, Any]:
        return _list_shape(await self._domains.of(app))

    async def report(self, call: Call) -> dict[str, Any]:
        names = await self._domains.names(call.app)
        hosts = names.secured
        if asked := call.request.query.getall("name", []):
            if unknown := set(asked) - set(hosts):
                raise InvalidInput(f"{shown(min(unknown))} is no host name of {call.app.name}")
            hosts = [host for host in hosts if host in asked]
        unserved = (await self._issuing.wanted(call.app)).unserved
        return {
            "box": await self._pointings.box(),
            "items": [
                {
                    "name": found.name,
                    "unicode": international(found.name),
                    "kind": _kind(found.name, names),
                    "dns": found.verdict.value,
                    "answer": found.answer,
                    "no_certificate": unserved.get(found.name),
                }
                for found in await self._pointings.look(hosts)
            ],
        }

    async def everywhere(self, call: Call) -> dict[str, Any]:
        return await self._everywhere()

    async def add_everywhere(self, call: Call) -> dict[str, Any]:
        await self._sites.change_global_domains(self._domains.everywhere.add(call.actor, call.body.names))
        return await self._everywhere()

    async def replace_everywhere(self, call: Call) -> dict[str, Any]:
        await self._sites.change_global_domains(self._domains.everywhere.replace(call.actor, call.body.names))
        return await self._everywhere()

    async def remove_everywhere(self, call: Call) -> dict[str, Any]:
        name = call.request.match_info["name"]
        await self._sites.change_global_domains(self._domains.everywhere.remove(call.actor, name))
        return await self._everywhere()

    async def _everywhere(self) -> dict[str, Any]:
        return {**_list_shape(await self._domains.everywhere.all()), "built_in": self._domains.built_in}


def _list_shape(names: Sequence[str]) -> dict[str, Any]:
    """`unicode` has those that people write otherwise."""
    written = {name: international(name) for name in names}
    return {"items": list(names), "unicode": {name: text for name, text in written.items() if text != name}}


def _kind(name: str, names: Names) -> str:
    if name in names.own:
        return "domain"
    if name in names.everywhere:
        return "global"
    return "built-in" if name == names.built_in else "redirect"
