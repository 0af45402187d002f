"""What the edge writes down of an app: its requests, if that was asked for, and Nginx's own trouble."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from paasd.api.operations import NDJSON, Call, Operation, while_present
from paasd.clock import steady
from paasd.errors import InvalidInput, NotFound
from paasd.gateway.policy import Gateway
from paasd.identity.policy import Action
from paasd.models import App
from paasd.route.access_logs import parsed
from paasd.route.domains import Domains
from paasd.route.edge_logs import EdgeLogs
from paasd.route.error_log import cleaned
from paasd.run.instances import Instances

Shape = Callable[[bytes], Awaitable[Mapping[str, Any] | None]]
_MAX_LINES = 5000
_FRESH = 1.0
"""Seconds for which the names of instances are believed."""


class EdgeLogsResource:
    def __init__(self, gateway: Gateway, domains: Domains, logs: EdgeLogs, instances: Instances) -> None:
        self._gateway = gateway
        self._domains = domains
        self._logs = logs
        self._instances = instances

    def operations(self) -> Sequence[Operation]:
        access = "Requests of the app as ndjson, if `access-log` is on; `tail=N`, `follow=1`"
        error = "Lines of Nginx's error log that are of the app, as ndjson; `tail=N`, `follow=1`"
        return [
            Operation("GET", "/apps/{app}/access-logs", Action.APP_READ, self.access, access),
            Operation("GET", "/apps/{app}/error-logs", Action.APP_READ, self.error, error),
        ]

    async def access(self, call: Call) -> web.StreamResponse:
        app, tail = call.app.name, _tail(call)
        lines = await self._logs.accesses(app, tail)
        if not lines and (await self._gateway.values(call.app)).get("access-log", "off") == "off":
            raise NotFound(f"requests of {app} are not logged", hint=f"Log them with: edge:set {app} access-log on")
        named = _Named(self._instances, call.app)
        if call.number("follow"):
            return await _follow(call, self._logs.follow_accesses(app, tail), named)
        return await _send(call, lines, named)

    async def error(self, call: Call) -> web.StreamResponse:
        app, tail = call.app, _tail(call)
        since = await self._domains.since(app)
        if call.number("follow"):
            return await _follow(call, await self._logs.follow_errors(app.name, since, tail), _text)
        return await _send(call, await self._logs.errors(app.name, since, tail), _text)


class _Named:
    """An access with the name of the instance that answered, if it is still there."""

    def __init__(self, instances: Instances, app: App) -> None:
        self._instances = instances
        self._app = app
        self._names: dict[str, str] = {}
        self._asked = float("-inf")

    async def __call__(self, line: bytes) -> Mapping[str, Any] | None:
        found = parsed(line)
        address = str(found.get("upstream") or "").partition(":")[0] if found else ""
        if not found or not address:
            return found
        if address not in self._names and self._asked < steady() - _FRESH:
            rows = await self._instances.of(self._app)
            self._names = {row.address: f"{row.process_type}.{row.number}" for row in rows}
            self._asked = steady()
        return {**found, "instance": self._names.get(address)}


async def _text(line: bytes) -> Mapping[str, Any]:
    return {"text": cleaned(line)}


def _tail(call: Call) -> int:
    tail = call.number("tail", 100)
    if tail > _MAX_LINES:
        raise InvalidInput(f"tail is at most {_MAX_LINES}")
    return tail


async def _begin(call: Call) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Accel-Buffering": "no"})
    await response.prepare(call.request)
    return response


async def _send(call: Call, lines: Sequence[bytes], shape: Shape) -> web.StreamResponse:
    response = await _begin(call)
    with contextlib.suppress(ConnectionError):  # the reader left
        for line in lines:
            if found := await shape(line):
                await response.write(json.dumps(found).encode() + b"\n")
    return response


async def _follow(call: Call, lines: AsyncGenerator[bytes, None], shape: Shape) -> web.StreamResponse:
    response = await _begin(call)

    async def copy() -> None:
        async with contextlib.aclosing(lines):
            async for line in lines:
                if found := await shape(line):
                    await response.write(json.dumps(found).encode() + b"\n")

    await while_present(call, copy())
    return response
