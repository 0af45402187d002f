"""The API on its Unix socket: who calls, how errors look, and the table of operations."""

from __future__ import annotations

import asyncio
import grp
import json
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from paasd.api.operations import STOPPING, Operation, Resource, as_handler
from paasd.apps import Apps
from paasd.errors import Forbidden, NotAuthenticated, NotFound, PaasdError, from_exception
from paasd.identity.sessions import Sessions
from paasd.models import Actor

_log = logging.getLogger(__name__)

PREFIX = "/api/v1"
GROUP = "paasd"
_PEER = struct.Struct("3i")
_MAX_BODY = 4 * 1024 * 1024

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Serves the operations of all resources on one Unix socket (mode 0660: root and the group `paasd`)."""

    def __init__(
        self, path: Path, apps: Apps, sessions: Sessions, local_admin: Actor, resources: Sequence[Resource]
    ) -> None:
        self._path = path
        self._sessions = sessions
        self._local_admin = local_admin
        self.operations: list[Operation] = [op for resource in resources for op in resource.operations()]
        webapp = web.Application(
            middlewares=[_problems, self._identify],
            client_max_size=_MAX_BODY,
        )
        self._stopping = webapp[STOPPING] = asyncio.Event()
        for operation in self.operations:
            webapp.router.add_route(operation.method, PREFIX + operation.path, as_handler(operation, apps))
        self._runner = web.AppRunner(webapp, access_log=None, shutdown_timeout=10, handle_signals=False)

    async def start(self) -> None:
        await self._runner.setup()
        await asyncio.to_thread(self._path.unlink, True)
        site = web.UnixSite(self._runner, str(self._path))
        await site.start()
        await asyncio.to_thread(_share_with_group, self._path)

    async def probe(self) -> None:
        """Ask as a client does, for what takes the database to answer. Raises if there is no good answer."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(f"GET {PREFIX}/apps HTTP/1.0\r\n\r\n".encode())
            status = await reader.readline()
            if status.split()[1:2] != [b"200"]:
                raise PaasdError(f"the API answered itself {status!r}")
        finally:
            writer.close()

    def end_streams(self) -> None:
        """Before all else at the stop: whoever follows events or logs would hold the others up."""
        self._stopping.set()

    async def stop(self) -> None:
        await self._runner.cleanup()
        await asyncio.to_thread(self._path.unlink, True)

    @web.middleware
    async def _identify(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            session = self._sessions.find(token) if scheme == "Bearer" else None
            if session is None:
                raise NotAuthenticated("the token is not valid (any more)", hint="Open a new session.")
            request["session"], request["actor"] = session, session.actor
        else:
            _require_local_admin(request)
            request["actor"] = self._local_admin
        return await handler(request)


@web.middleware
async def _problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """RFC 9457 for everything that goes wrong."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _problem(NotFound("no such resource", hint="docs/api.md lists every path."))
    except web.HTTPException as error:
        problem = {**PaasdError(error.reason).problem(), "status": error.status, "code": "http-error"}
        return _problem_response(problem)
    except Exception as error:
        known = from_exception(error)
        if known is None:
            _log.exception("%s %s failed", request.method, request.path)
        return _problem(known or PaasdError("paasd failed; its log says why"))


def _problem(error: PaasdError) -> web.Response:
    return _problem_response(error.problem())


def _problem_response(problem: dict[str, object]) -> web.Response:
    status = int(str(problem["status"]))
    return web.Response(text=json.dumps(problem), status=status, content_type="application/problem+json")


def _require_local_admin(request: web.Request) -> None:
    """SO_PEERCRED (unix(7)) tells the uid of the process that connected."""
    transport = request.transport
    connection: socket.socket | None = transport.get_extra_info("socket") if transport else None
    if connection is None:
        raise NotAuthenticated("the connection is gone")
    _, uid, gid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid not in (0, os.getuid()) and not _in_group(uid, gid):
        raise Forbidden(
            "only root and members of the group paasd administer this box",
            hint="Use sudo, or ssh with a key that was added with keys:add.",
        )


def _in_group(uid: int, gid: int) -> bool:
    try:
        group = grp.getgrnam(GROUP)
        return gid == group.gr_gid or pwd.getpwuid(uid).pw_name in group.gr_mem
    except KeyError:
        return False


def _share_with_group(path: Path) -> None:
    """Let members of the group reach the socket and pass, not read, the directories above it. Without the group, or
    the right to hand files to it, the socket is its owner's alone."""
    path.chmod(0o600)
    try:
        group = grp.getgrnam(GROUP).gr_gid
        for directory in (path.parent, path.parent.parent):
            os.chown(directory, -1, group)
            directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o010)
        os.chown(path, -1, group)
        path.chmod(0o660)
    except (KeyError, PermissionError):
        return
