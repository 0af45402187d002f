"""Connections to the port of an app's instance, for debugging: `ssh -L 8080:blog:5000 …` and `ps:forward blog`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

from paasd import events
from paasd.apps import Apps
from paasd.config import RunConfig
from paasd.database import Database
from paasd.errors import Conflict, Forbidden, NotFound
from paasd.identity.policy import Action, authorize
from paasd.models import Actor, App, Release
from paasd.names import shown
from paasd.release import Releases
from paasd.run.instances import InstanceRow, Instances

_CONNECT_TIMEOUT = 5.0
_CHUNK = 64 * 1024
_OUTPUT = 1


class Forward:
    """A connection to an instance. Its app counts as used until `end`, which must be called once, on the loop."""

    def __init__(self, connection: socket.socket, end: Callable[[], None]) -> None:
        self.connection = connection
        self._end = end

    def end(self) -> None:
        self.connection.close()
        self._end()


class Forwards:
    """Where a connection goes is looked up in the database: nothing of what the client says is ever connected to."""

    def __init__(
        self, database: Database, run: RunConfig, apps: Apps, releases: Releases, instances: Instances
    ) -> None:
        self._database = database
        self._run = run
        self._apps = apps
        self._releases = releases
        self._instances = instances
        self._open: Counter[str] = Counter()
        """How many there are to instances of an app, by its id."""

    def are_open(self, app: App) -> bool:
        return app.id in self._open

    async def open(self, actor: Actor, host: str, port: int | None) -> Forward:
        """A connection to `blog`, `blog.worker` or `blog.web.2`; no port: the app's own. Raises NotFound for what is no
        app of the actor's organization, Forbidden for another port or without the right to run commands there,
        Conflict when nothing listens or it sleeps."""
        name, _, title = host.partition(".")
        try:
            app = await self._apps.get(actor.organization_id, name)
        except NotFound:
            raise NotFound(
                f"there is no app {shown(host)}; connections go to apps only", hint="For example: ssh -L 8080:APP:PORT"
            ) from None
        authorize(actor, Action.RUN, app.organization_id)
        release = await self._releases.current(app)
        own = (release.port if release else None) or self._run.port
        if port not in (None, own):
            raise Forbidden(f"the port of {app.name} is {own}, and no other is forwarded", hint=f"Use {name}:{own}")
        self._open[app.id] += 1
        try:
            row = await self._instance(app, release, title)
            connection = await _connected(row, own)
        except BaseException:
            self._leave(app)
            raise
        forward = Forward(connection, partial(self._leave, app))
        try:
            await self._record(actor, app, row)
        except BaseException:
            forward.end()
            raise
        return forward

    def _leave(self, app: App) -> None:
        self._open[app.id] -= 1
        self._open += Counter()  # forgets those at zero

    async def _record(self, actor: Actor, app: App, row: InstanceRow) -> None:
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                "app.forwarded",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                instance=f"{row.process_type}.{row.number}",
            )

    async def _instance(self, app: App, release: Release | None, title: str) -> InstanceRow:
        """The one that is named, or the first of web, or the first."""
        live = await self._instances.of(app, "live")
        if release is None or not live:
            raise Conflict(f"nothing of {app.name} runs", hint=f"Look at: ps:report {app.name}")
        types = [row.process_type for row in live]
        row = await self._instances.find(app, title or ("web" if "web" in types else types[0]))
        if row.asleep:
            raise Conflict(f"{app.name} is asleep", hint=f"Wake it first with: ps:wake {app.name}")
        return row


async def _connected(row: InstanceRow, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(connection, (row.address, port))
    except OSError as error:  # TimeoutError is one
        connection.close()
        raise Conflict(f"{row.process_type}.{row.number} does not take connections on port {port}") from error
    except BaseException:
        connection.close()
        raise
    return connection


class Forwarded:
    """A connection as a conversation; see `drivers.base.OneOff`. Ends by itself after `idle` seconds without a byte."""

    def __init__(self, forward: Forward, idle: float) -> None:
        self._forward = forward
        self._connection = forward.connection
        self._idle = idle
        self._used = asyncio.get_running_loop().time()

    async def read(self) -> tuple[int, bytes] | None:
        loop = asyncio.get_running_loop()
        self._used = loop.time()
        reading = asyncio.ensure_future(loop.sock_recv(self._connection, _CHUNK))
        try:
            while not reading.done():
                left = self._used + self._idle - loop.time()
                if left <= 0:
                    return None
                await asyncio.wait([reading], timeout=left)
            data = reading.result()
        except OSError:
            return None
        finally:
            reading.cancel()
        return (_OUTPUT, data) if data else None

    async def write(self, data: bytes) -> None:
        self._used = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError):  # the end is told by `read`
            await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def close_input(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    async def resize(self, columns: int, rows: int) -> None:
        """A connection has no size."""

    async def wait(self) -> int:
        return 0

    async def __aenter__(self) -> Forwarded:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._forward.end()
