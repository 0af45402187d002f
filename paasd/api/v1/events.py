"""Events: a page of them, or a stream with a cursor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from aiohttp import web

from paasd.api.operations import NDJSON, Call, Operation, while_present
from paasd.api.v1.shapes import event_shape
from paasd.events import Events
from paasd.identity.policy import Action


class EventsResource:
    def __init__(self, events: Events) -> None:
        self._events = events

    def operations(self) -> Sequence[Operation]:
        summary = (
            "What happened, oldest first: the newest `limit=`, or what came after the event `after=`; `app=`;"
            " `follow=1` goes on as ndjson"
        )
        return [Operation("GET", "/events", Action.APP_READ, self.events, summary)]

    async def events(self, call: Call) -> dict[str, Any] | web.StreamResponse:
        app = call.request.query.get("app")
        after = call.number("after") if "after" in call.request.query else None
        if call.number("follow"):
            return await self._stream(call, app, after)
        found = await self._events.list(call.actor.organization_id, app=app, after=after, limit=call.limit())
        return {"items": [event_shape(event) for event in found], "after": found[-1].id if found else after or 0}

    async def _stream(self, call: Call, app: str | None, after: int | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Accel-Buffering": "no"})
        await response.prepare(call.request)

        async def copy() -> None:
            events = self._events.follow(call.actor.organization_id, app=app, after=after, limit=call.limit())
            async with aclosing(events):
                async for event in events:
                    await response.write(json.dumps(event_shape(event)).encode() + b"\n")

        await while_present(call, copy())
        return response
