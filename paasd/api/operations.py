"""What an API operation is, and the one wrapper around all of them: identity, permission, body, errors, streaming."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import pydantic
from aiohttp import web

from paasd.apps import Apps
from paasd.errors import InvalidInput, PaasdError, from_exception
from paasd.identity.policy import Action, authorize
from paasd.models import Actor, App
from paasd.names import shown
from paasd.progress import Progress

_log = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"
_MAX_WAITING = 5000
STOPPING = web.AppKey("stopping", asyncio.Event)
"""Set when the daemon stops: streams that have no end of their own end then."""
_LOOK = 0.25
"""Seconds between two looks whether the client is still there."""


class Body(pydantic.BaseModel):
    """Base of all request bodies: unknown members are refused, so nothing can be assigned by accident."""

    # A validator is made when the first such body comes: the daemon starts sooner.
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, defer_build=True)


@dataclass
class Call:
    """One request, after identity and permission were settled."""

    request: web.Request
    actor: Actor
    progress: Progress
    found: App | None = None
    body: Any = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client left."""

    @property
    def app(self) -> App:
        assert self.found is not None, "the path of this operation names no app"
        return self.found

    def number(self, name: str, default: int = 0) -> int:
        """A whole number of the path or the query. Raises InvalidInput."""
        text = self.request.match_info.get(name) or self.request.query.get(name) or str(default)
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise InvalidInput(f"{name} must be a whole number")
        return int(text)

    def limit(self) -> int:
        return max(1, min(self.number("limit", 50), 200))


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True)
class Operation:
    """`handler` returns JSON, or a response of its own. `streams`: it reports progress, and a client that accepts
    ndjson gets `{"line"}` objects as they happen, then one `{"result"}` or `{"error"}`."""

    method: str
    path: str
    action: Action
    handler: Handler
    summary: str
    body: type[Body] | None = None
    streams: bool = False


class Resource(Protocol):
    """A file of api/v1: what it offers."""

    def operations(self) -> Sequence[Operation]: ...


def as_handler(operation: Operation, apps: Apps) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of an operation."""

    async def handle(request: web.Request) -> web.StreamResponse:
        actor = cast(Actor, request["actor"])
        call = Call(request, actor, Progress())
        if "app" in request.match_info:
            call.found = await apps.get(actor.organization_id, request.match_info["app"])
        authorize(actor, operation.action, call.found.organization_id if call.found else actor.organization_id)
        if operation.body:
            call.body = await _read_body(request, operation.body)
        if operation.streams and NDJSON in request.headers.get("Accept", ""):
            return await _stream(operation, call)
        result = await operation.handler(call)
        return result if isinstance(result, web.StreamResponse) else web.json_response(result)

    return handle


async def _read_body(request: web.Request, model: type[Body]) -> Body:
    raw = await request.read()
    try:
        return model.model_validate_json(raw or b"{}")
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InvalidInput(f"{shown(where)}: {first['msg']}", hint="docs/api.md says what the body may hold.") from None


async def _stream(operation: Operation, call: Call) -> web.StreamResponse:
    """Run the handler in a task of its own and send what it reports. A client that leaves sets `call.gone`; whether
    that ends the work is the handler's decision."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    call.progress.add(lambda line: _enqueue(queue, line))
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Accel-Buffering": "no"})
    await response.prepare(call.request)
    task = asyncio.create_task(_outcome(operation, call, queue))
    looking = asyncio.create_task(look_for_absence(call))
    try:
        while True:
            message = await queue.get()
            await _send(response, call, message)
            if "line" not in message:
                return response
    finally:
        await asyncio.wait([task])
        looking.cancel()


def _enqueue(queue: asyncio.Queue[dict[str, Any]], line: str) -> None:
    """A reader slower than the work misses lines rather than having the daemon keep them all."""
    if queue.qsize() < _MAX_WAITING:
        queue.put_nowait({"line": line})
    elif queue.qsize() == _MAX_WAITING:
        queue.put_nowait({"line": " !     Output comes faster than it can be sent; some lines are left out."})


async def _outcome(operation: Operation, call: Call, queue: asyncio.Queue[dict[str, Any]]) -> None:
    try:
        queue.put_nowait({"result": await operation.handler(call)})
    except BaseException as error:
        known = from_exception(error)
        if known is None and not isinstance(error, asyncio.CancelledError):
            _log.exception("%s %s failed", operation.method, operation.path)
        queue.put_nowait({"error": (known or PaasdError("paasd failed; its log says why")).problem()})


async def _send(response: web.StreamResponse, call: Call, message: dict[str, Any]) -> None:
    try:
        await response.write(json.dumps(message).encode() + b"\n")
    except (ConnectionError, RuntimeError):
        call.gone.set()


async def while_present(call: Call, work: Awaitable[None]) -> None:
    """Until the work ends, the daemon stops, or the client leaves, which a quiet stream would never notice by
    writing."""
    stopping = call.request.app[STOPPING]
    tasks = [asyncio.ensure_future(each) for each in (work, look_for_absence(call), stopping.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def look_for_absence(call: Call) -> None:
    """Returns, and sets `call.gone`, once the client has left."""
    session = call.request.get("session")
    while not call.gone.is_set():
        transport = call.request.transport
        if transport is None or transport.is_closing() or (session is not None and session.gone.is_set()):
            call.gone.set()
        await asyncio.sleep(_LOOK)
