"""Apps that sleep while nobody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.apps import Apps
from paasd.identity.policy import Action
from paasd.models import App
from paasd.sleep_rules import SleepRule, SleepRules
from paasd.sleeper import Sleeper


class SleepChange(Body):
    settings: dict[str, str | None]


class SleepResource:
    def __init__(self, apps: Apps, rules: SleepRules, sleeper: Sleeper) -> None:
        self._apps = apps
        self._rules = rules
        self._sleeper = sleeper

    def operations(self) -> Sequence[Operation]:
        path, change = "/apps/{app}/sleep", Action.APP_CONFIGURE
        return [
            Operation("GET", "/sleep", Action.APP_READ, self.listing, "Apps that sleep, or may"),
            Operation("GET", path, Action.APP_READ, self.report, "When the app sleeps, and whether it does"),
            Operation("PATCH", path, change, self.change, "Set and unset (null) when the app sleeps", SleepChange),
            Operation("DELETE", path, change, self.unset, "Never put the app to sleep; wakes it", streams=True),
            Operation("POST", f"{path}/now", change, self.now, "Put the app to sleep at once", streams=True),
            Operation("POST", f"{path}/wake", change, self.wake, "Wake the app", streams=True),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        rules = await self._rules.all()
        apps = await self._apps.of(call.actor.organization_id)
        return {"items": [self._shape(app, rules.get(app.id)) for app in apps if app.asleep or app.id in rules]}

    async def report(self, call: Call) -> dict[str, Any]:
        app = await self._apps.refresh(call.app)
        return self._shape(app, await self._rules.of(app))

    async def change(self, call: Call) -> dict[str, Any]:
        body: SleepChange = call.body
        await self._rules.change(call.actor, call.app, body.settings)
        return await self.report(call)

    async def unset(self, call: Call) -> dict[str, Any]:
        await self._rules.unset(call.actor, call.app)
        await self._sleeper.wake(call.app, f"{call.actor.name} turned sleeping off")
        return await self.report(call)

    async def now(self, call: Call) -> dict[str, Any]:
        await self._sleeper.now(call.app)
        return await self.report(call)

    async def wake(self, call: Call) -> dict[str, Any]:
        seconds = await self._sleeper.wake(call.app, f"{call.actor.name} asked for it")
        return {**await self.report(call), "seconds": seconds}

    def _shape(self, app: App, rule: SleepRule | None) -> dict[str, Any]:
        idle = self._sleeper.idle(app)
        return {
            "app": app.name,
            "rule": asdict(rule) if rule else None,
            "asleep": app.asleep,
            "idle": None if idle is None else round(idle, 1),
        }
