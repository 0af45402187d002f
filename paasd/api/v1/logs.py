"""Logs of an app's instances, merged by time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from aiohttp import web

from paasd.api.operations import NDJSON, Call, Operation, while_present
from paasd.api.v1.shapes import instant
from paasd.errors import InvalidInput
from paasd.identity.policy import Action
from paasd.models import LogLine
from paasd.run.logs import Logs

_MAX_LINES = 5000


class LogsResource:
    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def operations(self) -> Sequence[Operation]:
        summary = "Log lines as ndjson; `tail=N`, `follow=1`, `process=web` or `web.1`"
        return [Operation("GET", "/apps/{app}/logs", Action.APP_READ, self.stream, summary)]

    async def stream(self, call: Call) -> web.StreamResponse:
        tail = call.number("tail", 100)
        if tail > _MAX_LINES:
            raise InvalidInput(f"tail is at most {_MAX_LINES}")
        process = call.request.query.get("process")
        response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Accel-Buffering": "no"})
        await response.prepare(call.request)
        if call.number("follow"):
            await while_present(call, self._follow(call, response, tail, process))
            return response
        with contextlib.suppress(ConnectionError):  # the reader left
            for line in await self._logs.recent(call.app, tail, process):
                await response.write(encoded(line))
        return response

    async def _follow(self, call: Call, response: web.StreamResponse, tail: int, process: str | None) -> None:
        async for line in self._logs.follow(call.app, tail, process):
            await response.write(encoded(line))


def encoded(line: LogLine) -> bytes:
    shape = {"at": instant(line.at), "instance": line.instance, "text": line.text, "stderr": line.stderr}
    return json.dumps(shape).encode() + b"\n"
