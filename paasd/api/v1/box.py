"""The box itself and what belongs to no other file: version, state, clean-up, an app's Nginx configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd import __version__
from paasd.api.operations import Body, Call, Operation
from paasd.build.builder import Builder
from paasd.differences import Differences
from paasd.identity.policy import Action, allows
from paasd.nginx_snippets import Snippets
from paasd.route.edge import Edge


class Cleanup(Body):
    all: bool = False


class BoxResource:
    def __init__(self, edge: Edge, snippets: Snippets, builder: Builder, differences: Differences) -> None:
        self._edge = edge
        self._snippets = snippets
        self._builder = builder
        self._differences = differences

    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "/version", Action.APP_READ, self.version, "Version of the daemon"),
            Operation("GET", "/apps/{app}/nginx", Action.APP_READ, self.nginx, "The app's generated server block"),
            Operation("GET", "/state", Action.BOX_READ, self.state, "Where database, engine, edge and files disagree"),
            Operation(
                "POST",
                "/cleanup",
                Action.BOX_CLEAN,
                self.cleanup,
                "Remove images no release needs, trim the build cache, or with `all` empty it; `freed_cache` in bytes",
                Cleanup,
                streams=True,
            ),
        ]

    async def version(self, call: Call) -> dict[str, Any]:
        return {"version": __version__}

    async def nginx(self, call: Call) -> dict[str, Any]:
        """Administrators' own lines are shown to administrators alone: they may hold secrets."""
        text = await self._edge.site_config(call.app.name)
        snippet = await self._snippets.of(call.app)
        if snippet and not allows(call.actor, Action.NGINX_SNIPPET):
            text = text.replace(snippet, "    # (only administrators see them)")
        return {"text": text}

    async def state(self, call: Call) -> dict[str, Any]:
        return {"differences": await self._differences()}

    async def cleanup(self, call: Call) -> dict[str, Any]:
        removed = await self._builder.prune_images()
        return {"removed_images": removed, "freed_cache": await self._builder.prune_cache(everything=call.body.all)}
