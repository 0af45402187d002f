"""The box itself and what belongs to no other file: version, events, an app's report and Nginx configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd import __version__
from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.build.builder import Builder
from paasd.differences import Differences
from paasd.events import Events
from paasd.identity.policy import Action
from paasd.route.edge import Edge


class Cleanup(Body):
    all: bool = False


class BoxResource:
    def __init__(self, events: Events, edge: Edge, builder: Builder, differences: Differences) -> None:
        self._events = events
        self._edge = edge
        self._builder = builder
        self._differences = differences

    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "/version", Action.APP_READ, self.version, "Version of the daemon"),
            Operation(
                "GET", "/events", Action.APP_READ, self.events, "What happened; `app=`, `after=` an id, `limit=`"
            ),
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

    async def events(self, call: Call) -> dict[str, Any]:
        app = call.request.query.get("app")
        after, limit = call.number("after"), call.limit()
        found = await self._events.list(call.actor.organization_id, app=app, after=after, limit=limit)
        items = [{**e, "at": instant(e["at"])} for e in found]
        for item in items:
            del item["organization_id"]
        return {"items": items, "after": items[-1]["id"] if items else after}

    async def nginx(self, call: Call) -> dict[str, Any]:
        return {"text": await self._edge.site_config(call.app.name)}

    async def state(self, call: Call) -> dict[str, Any]:
        return {"differences": await self._differences()}

    async def cleanup(self, call: Call) -> dict[str, Any]:
        removed = await self._builder.prune_images()
        return {"removed_images": removed, "freed_cache": await self._builder.prune_cache(everything=call.body.all)}
