"""Autoscaling of an app's process types: the rules, and what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.autoscale import Autoscaler
from paasd.autoscale_rules import AutoscaleRules, Rule
from paasd.errors import NotFound
from paasd.identity.policy import Action
from paasd.models import App


class AutoscaleChange(Body):
    process_type: str = "web"
    settings: dict[str, str | None]


class AutoscaleRemoval(Body):
    process_type: str | None = None
    """All, unless one is named."""


class AutoscaleResource:
    def __init__(self, rules: AutoscaleRules, autoscaler: Autoscaler) -> None:
        self._rules = rules
        self._autoscaler = autoscaler

    def operations(self) -> Sequence[Operation]:
        path, change = "/apps/{app}/autoscale", Action.APP_CONFIGURE
        return [
            Operation("GET", path, Action.APP_READ, self.report, "Autoscaling rules, and what was seen last"),
            Operation(
                "PATCH", path, change, self.change, "Set and unset (null) a process type's rule", AutoscaleChange
            ),
            Operation("DELETE", path, change, self.unset, "Stop autoscaling", AutoscaleRemoval),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        rules = await self._rules.of(call.app)
        return {name: self._shape(call.app, name, rule) for name, rule in sorted(rules.items())}

    async def change(self, call: Call) -> dict[str, Any]:
        body: AutoscaleChange = call.body
        await self._rules.change(call.actor, call.app, body.process_type, body.settings)
        return await self.report(call)

    async def unset(self, call: Call) -> dict[str, Any]:
        body: AutoscaleRemoval = call.body
        rules = await self._rules.of(call.app)
        if not rules or (body.process_type and body.process_type not in rules):
            raise NotFound(f"nothing of {call.app.name} is autoscaled that could be unset")
        for name in [body.process_type] if body.process_type else rules:
            await self._rules.unset(call.actor, call.app, name)
        return await self.report(call)

    def _shape(self, app: App, process_type: str, rule: Rule) -> dict[str, Any]:
        observed = self._autoscaler.observed(app, process_type)
        latest = observed.recommendation
        facts = asdict(rule)
        return {
            "rule": {"min": facts.pop("least"), "max": facts.pop("most"), **facts},
            "seen": asdict(observed.load),
            "recommended": latest.count if latest else None,
            "reason": latest.reason if latest else None,
        }
