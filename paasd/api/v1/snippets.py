"""An administrator's own lines in the server block of an app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.app_sites import AppSites
from paasd.identity.policy import Action
from paasd.nginx_snippets import Snippets


class NewSnippet(Body):
    text: str
    """Nginx directives; empty for none."""


class SnippetsResource:
    def __init__(self, snippets: Snippets, sites: AppSites) -> None:
        self._snippets = snippets
        self._sites = sites

    def operations(self) -> Sequence[Operation]:
        path, action = "/apps/{app}/nginx/snippet", Action.NGINX_SNIPPET
        return [
            Operation("GET", path, action, self.show, "Own lines in the app's server block"),
            Operation("PUT", path, action, self.set, "Put own lines into the app's server block", NewSnippet),
        ]

    async def show(self, call: Call) -> dict[str, Any]:
        return {"text": await self._snippets.of(call.app)}

    async def set(self, call: Call) -> dict[str, Any]:
        """What Nginx refuses is not kept."""

        async def change() -> str:
            before = await self._snippets.of(call.app)
            await self._snippets.set(call.actor, call.app, call.body.text)
            return before

        await self._sites.change(call.app, change, lambda old: self._snippets.put_back(call.actor, call.app, old))
        return await self.show(call)
