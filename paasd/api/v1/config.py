"""Config vars of an app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from paasd.admission import Admission
from paasd.api.operations import Body, Call, Operation
from paasd.changes import Changes
from paasd.config_vars import ConfigVars
from paasd.errors import Conflict
from paasd.identity.policy import Action
from paasd.models import Secret


class ConfigChange(Body):
    set: dict[str, str] = pydantic.Field(default_factory=dict)
    unset: list[str] = pydantic.Field(default_factory=list)
    restart: bool = True
    stage: bool = False
    """Only keep it for `apply`."""


class ConfigResource:
    def __init__(self, config_vars: ConfigVars, admission: Admission, changes: Changes) -> None:
        self._config_vars = config_vars
        self._admission = admission
        self._changes = changes

    def operations(self) -> Sequence[Operation]:
        staged = "/apps/{app}/config/staged"
        return [
            Operation("GET", "/apps/{app}/config", Action.CONFIG_READ, self.show, "The config vars, values included"),
            Operation(
                "PATCH",
                "/apps/{app}/config",
                Action.APP_CONFIGURE,
                self.change,
                "Set and unset config vars, as one release",
                ConfigChange,
                streams=True,
            ),
            Operation(
                "GET",
                staged,
                Action.APP_READ,
                self.staged,
                "Names of the config vars that wait, and what becomes of them",
            ),
            Operation(
                "POST",
                staged,
                Action.APP_CONFIGURE,
                self.apply,
                "Apply what is staged, as one release",
                streams=True,
            ),
            Operation(
                "DELETE", "/apps/{app}/config/staged", Action.APP_CONFIGURE, self.discard, "Forget what is staged"
            ),
        ]

    async def show(self, call: Call) -> dict[str, Any]:
        return {"items": {k: v.reveal() for k, v in (await self._config_vars.get(call.app)).items()}}

    async def change(self, call: Call) -> dict[str, Any]:
        body: ConfigChange = call.body
        self._admission.require_unlocked(call.app)
        changes: dict[str, Secret | None] = {name: None for name in body.unset}
        changes |= {name: Secret(value) for name, value in body.set.items()}
        if body.stage:
            await self._config_vars.stage(call.actor, call.app, changes)
            return {"changed": False, "release": None, "staged": len(await self._config_vars.staged(call.app))}
        changed = await self._config_vars.change(call.actor, call.app, changes)
        return {"changed": changed, "release": await self._deploy(call, changes) if changed and body.restart else None}

    async def staged(self, call: Call) -> dict[str, Any]:
        present, waiting = await self._config_vars.get(call.app), await self._config_vars.staged(call.app)
        return {"items": [{"name": name, "change": _change(present.get(name), new)} for name, new in waiting.items()]}

    async def apply(self, call: Call) -> dict[str, Any]:
        self._admission.require_unlocked(call.app)
        changes = await self._config_vars.apply(call.actor, call.app)
        if not changes:
            raise Conflict(
                f"nothing is staged for {call.app.name}", hint="Stage with: config:set --stage APP NAME=value"
            )
        return {"applied": list(changes), "release": await self._deploy(call, changes)}

    async def discard(self, call: Call) -> dict[str, Any]:
        return {"discarded": await self._config_vars.discard(call.actor, call.app)}

    async def _deploy(self, call: Call, changes: Mapping[str, Secret | None]) -> str | None:
        """The version of the new release, if there is anything to run."""
        words = [f"{'Unset' if value is None else 'Set'} {name}" for name, value in changes.items()]
        release = await self._changes.reconfigure(call.actor, call.app, ", ".join(words)[:200], call.progress)
        return release.version if release else None


def _change(present: Secret | None, new: Secret | None) -> str:
    if present == new:
        return "nothing"
    if new is None:
        return "unset"
    return "set" if present is None else "changed"
