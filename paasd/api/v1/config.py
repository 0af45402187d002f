"""Config vars of an app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic

from paasd.admission import Admission
from paasd.api.operations import Body, Call, Operation
from paasd.changes import Changes
from paasd.config_vars import ConfigVars
from paasd.identity.policy import Action
from paasd.models import Secret


class ConfigChange(Body):
    set: dict[str, str] = pydantic.Field(default_factory=dict)
    unset: list[str] = pydantic.Field(default_factory=list)
    restart: bool = True


class ConfigResource:
    def __init__(self, config_vars: ConfigVars, admission: Admission, changes: Changes) -> None:
        self._config_vars = config_vars
        self._admission = admission
        self._changes = changes

    def operations(self) -> Sequence[Operation]:
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
        ]

    async def show(self, call: Call) -> dict[str, Any]:
        return {"items": {k: v.reveal() for k, v in (await self._config_vars.get(call.app)).items()}}

    async def change(self, call: Call) -> dict[str, Any]:
        body: ConfigChange = call.body
        self._admission.require_unlocked(call.app)
        changes: dict[str, Secret | None] = {name: None for name in body.unset}
        changes |= {name: Secret(value) for name, value in body.set.items()}
        changed = await self._config_vars.change(call.actor, call.app, changes)
        version = None
        if changed and body.restart:
            words = [f"Set {name}" for name in body.set] + [f"Unset {name}" for name in body.unset]
            release = await self._changes.reconfigure(call.actor, call.app, ", ".join(words)[:200], call.progress)
            version = release.version if release else None
        return {"changed": changed, "release": version}
