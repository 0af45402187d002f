"""What instances and one-off commands of an app may use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.errors import InvalidInput
from paasd.identity.policy import Action
from paasd.models import Limits
from paasd.release import Releases
from paasd.resources import KINDS, LIMITS, RESERVATIONS, AppResources, Resources

_CLEARED = {"limits": LIMITS, "reservations": RESERVATIONS}


class ResourcesChange(Body):
    """Keys are kinds of resource, alone or behind a process type: `memory`, `worker.memory`."""

    settings: dict[str, str | None]


class ResourcesResource:
    def __init__(self, resources: Resources, releases: Releases) -> None:
        self._resources = resources
        self._releases = releases

    def operations(self) -> Sequence[Operation]:
        path, change = "/apps/{app}/resources", Action.APP_CONFIGURE
        return [
            Operation("GET", path, Action.APP_READ, self.report, "Limits and reservations by process type"),
            Operation(
                "PATCH",
                path,
                change,
                self.change,
                "Set and unset (null) limits and reservations, for what is started from now on",
                ResourcesChange,
            ),
            Operation(
                "DELETE",
                path,
                change,
                self.clear,
                "Take away `what=limits` or `what=reservations`, of one `process_type=` or of all",
            ),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        found = await self._resources.of(call.app)
        release = await self._releases.current(call.app)
        types = [process.name for process in release.process_types] if release else ["web"]
        return {
            "settings": dict(found.values),
            "keys": {kind: key.description for kind, key in KINDS.items()},
            "maximum": {"memory": found.most.memory, "cpu": found.most.cpus},
            "process_types": {name: _shape(found, name) for name in dict.fromkeys([*types, *found.process_types()])},
        }

    async def change(self, call: Call) -> dict[str, Any]:
        await self._resources.change(call.actor, call.app, call.body.settings)
        return await self.report(call)

    async def clear(self, call: Call) -> dict[str, Any]:
        what = call.request.query.get("what", "")
        if what not in _CLEARED:
            raise InvalidInput("what must be limits or reservations")
        process = call.request.query.get("process_type")
        await self._resources.clear(call.actor, call.app, _CLEARED[what], process)
        return await self.report(call)


def _shape(found: AppResources, process: str) -> dict[str, Any]:
    limits = found.limits(process)
    return {kind: {"value": _of(limits, kind), "origin": found.origin(kind, process)} for kind in KINDS}


def _of(limits: Limits, kind: str) -> float:
    return {
        "memory": limits.memory,
        "cpu": limits.cpus,
        "pids": limits.pids,
        "reserve-memory": limits.memory_reservation,
    }[kind]
