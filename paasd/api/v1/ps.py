"""Instances of an app: report, scale, restart, stop, start, looking into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.api.v1.terminal import conversation, converse, terminal_of, words
from paasd.apps import Apps, wanted_counts
from paasd.changes import Changes
from paasd.drivers.base import Driver
from paasd.enter import Enter
from paasd.errors import NotFound
from paasd.forward import Forwarded, Forwards
from paasd.identity.policy import Action
from paasd.models import Instance, InstanceState
from paasd.release import Releases
from paasd.run.instances import InstanceRow, Instances

_ENTER = (
    "Run a command inside a running instance (WebSocket); `command=` JSON list, whose first word may name the instance;"
    " `columns=` and `rows=` for a terminal"
)
_FORWARD = (
    "A connection to the app's port (WebSocket); `instance=web.1` for one of several; `port=` may only be the app's own"
)


class NewScale(Body):
    scale: dict[str, int]


class PsResource:
    def __init__(
        self,
        apps: Apps,
        releases: Releases,
        instances: Instances,
        driver: Driver,
        changes: Changes,
        enter: Enter,
        forwards: Forwards,
        forward_idle: float,
    ) -> None:
        self._apps = apps
        self._releases = releases
        self._instances = instances
        self._driver = driver
        self._changes = changes
        self._enter = enter
        self._forwards = forwards
        self._forward_idle = forward_idle

    def operations(self) -> Sequence[Operation]:
        path, change = "/apps/{app}/ps", Action.APP_CONFIGURE
        return [
            Operation("GET", path, Action.APP_READ, self.report, "Process types, counts and instances"),
            Operation(
                "GET",
                f"{path}/instances/{{instance}}",
                Action.APP_READ,
                self.inspect,
                "What the engine tells of `web.1`, or of the first `web`; values of variables masked",
            ),
            Operation("GET", "/apps/{app}/enter", Action.RUN, self.enter, _ENTER),
            Operation("GET", "/apps/{app}/forward", Action.RUN, self.forward, _FORWARD),
            Operation("PUT", f"{path}/scale", change, self.scale, "Set instance counts", NewScale, streams=True),
            Operation("POST", f"{path}/restart", change, self.restart, "Restart without a gap", streams=True),
            Operation("POST", f"{path}/stop", change, self.stop, "Stop all instances", streams=True),
            Operation("POST", f"{path}/start", change, self.restart, "Start a stopped app", streams=True),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        release = await self._releases.current(call.app)
        actual = {instance.name: instance for instance in await self._driver.list(call.app.id)}
        rows = await self._instances.of(call.app)
        types = [p.name for p in release.process_types] if release else []
        formation = release.app_json.get("formation", {}) if release else {}
        names = dict.fromkeys([*types, *call.app.scale])
        return {
            "stopped": call.app.stopped,
            "asleep": call.app.asleep,
            "release": release.version if release else None,
            "scale": wanted_counts(names, call.app.scale, formation),
            "instances": [_shape(row, actual.get(row.name)) for row in rows],
        }

    async def inspect(self, call: Call) -> dict[str, Any]:
        row = await self._instances.find(call.app, call.request.match_info["instance"])
        found = await self._driver.describe(row.name)
        if found is None:
            raise NotFound(f"{row.name} is not on the engine", hint=f"Start it again with: ps:restart {call.app.name}")
        return {"instance": f"{row.process_type}.{row.number}", "name": row.name, "engine": dict(found)}

    async def enter(self, call: Call) -> web.StreamResponse:
        command = words(call.request.query.get("command", "[]"))
        terminal = terminal_of(call)
        async with conversation(call) as socket:
            with self._enter.visit(call.app):
                async with await self._enter(call.actor, call.app, command, terminal) as one_off:
                    status = await converse(call, socket, one_off)
            await socket.send_json({"exit": status})
        return socket

    async def forward(self, call: Call) -> web.StreamResponse:
        instance, port = call.request.query.get("instance"), call.number("port") or None
        host = f"{call.app.name}.{instance}" if instance else call.app.name
        async with conversation(call) as socket:
            forward = await self._forwards.open(call.actor, host, port)
            async with Forwarded(forward, self._forward_idle) as forwarded:
                status = await converse(call, socket, forwarded)
            await socket.send_json({"exit": status})
        return socket

    async def scale(self, call: Call) -> dict[str, Any]:
        await self._apps.set_scale(call.actor, call.app, call.body.scale)
        await self._changes.scale(call.actor, call.app, call.progress)
        return await self.report(call)

    async def restart(self, call: Call) -> dict[str, Any]:
        release = await self._changes.restart(call.actor, call.app, call.progress)
        return {"release": release.version}

    async def stop(self, call: Call) -> dict[str, Any]:
        await self._changes.stop(call.app, call.progress)
        return {"stopped": True}


def _runs(instance: Instance | None) -> bool:
    return instance is not None and instance.state is InstanceState.RUNNING


def _shape(row: InstanceRow, instance: Instance | None) -> dict[str, Any]:
    return {
        "instance": f"{row.process_type}.{row.number}",
        "name": row.name,
        "address": row.address,
        "duty": row.state,
        "state": "asleep" if row.asleep and not _runs(instance) else instance.state if instance else "missing",
        "restarts": instance.restarts if instance else 0,
        "exit_code": instance.exit_code if instance else None,
        "out_of_memory": instance.oom_killed if instance else False,
        "started_at": instant(instance.started_at) if instance else None,
    }
