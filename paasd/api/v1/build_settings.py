"""How an app is built: what was set, what decided, and forgetting the caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.apps import count_origin, wanted_counts
from paasd.autoscale_rules import AutoscaleRules
from paasd.build.builder import Builder
from paasd.build.decision import Decision, Planner
from paasd.build_settings import KEYS, BuildSettings
from paasd.errors import Conflict
from paasd.identity.policy import Action
from paasd.models import App, Checkout
from paasd.source.checkout import open_checkout
from paasd.source.repositories import Repositories


class BuildSettingsChange(Body):
    settings: dict[str, str | None]


async def pushed(repositories: Repositories, app: App) -> Checkout:
    """The newest revision of the deploy branch. Raises Conflict before the first push."""
    refs = await repositories.refs(app)
    revision = refs.get(f"refs/heads/{app.deploy_branch}") if app.deploy_branch else None
    if revision is None:
        raise Conflict(f"nothing has been pushed to {app.name} yet", hint="Push it: git push paasd main")
    return await open_checkout(repositories.path(app), revision)


class BuildSettingsResource:
    def __init__(
        self,
        settings: BuildSettings,
        builder: Builder,
        planner: Planner,
        repositories: Repositories,
        rules: AutoscaleRules,
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._planner = planner
        self._repositories = repositories
        self._rules = rules

    def operations(self) -> Sequence[Operation]:
        path, read, change = "/apps/{app}/build-settings", Action.APP_READ, Action.APP_CONFIGURE
        return [
            Operation("GET", path, read, self.report, "What was set for the app's builds"),
            Operation("PATCH", path, change, self.change, "Set and unset (null) build settings", BuildSettingsChange),
            Operation(
                "GET", f"{path}/explain", read, self.explain, "How the pushed code would be built, and what decides it"
            ),
            Operation("DELETE", "/apps/{app}/build-cache", change, self.clear, "Forget the app's build caches"),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        found = await self._settings.get(call.app)
        return {
            "settings": {key: setting.value for key, setting in found.items()},
            "keys": {key: known.description for key, known in KEYS.items()},
        }

    async def change(self, call: Call) -> dict[str, Any]:
        await self._settings.change(call.actor, call.app, call.body.settings)
        return await self.report(call)

    async def explain(self, call: Call) -> dict[str, Any]:
        """Of the newest revision that was stored. Raises Conflict before the first push."""
        checkout = await pushed(self._repositories, call.app)
        decision = await self._planner.decide(call.app, checkout)
        return {
            "revision": checkout.revision,
            "buildpack": decision.plan.buildpack,
            "versions": decision.plan.versions,
            "settings": [
                {"key": key, "value": setting.value, "origin": setting.origin}
                for key, setting in decision.settings.items()
            ],
            "reasons": list(decision.plan.reasons),
            "process_types": {p.name: p.command for p in decision.process_types},
            "instances": await self._instances(call.app, decision),
            "config_vars": {
                name: {"required": need.required, "generated": need.generated, "description": need.description}
                for name, need in decision.manifest.config_vars.items()
            },
            "unused": list(decision.manifest.unused),
        }

    async def _instances(self, app: App, decision: Decision) -> list[dict[str, Any]]:
        """How many of each process type, and who says so."""
        formation, rules = decision.manifest.kept.get("formation", {}), await self._rules.of(app)
        names = [process.name for process in decision.process_types]
        found = []
        for name, count in wanted_counts(names, app.scale, formation).items():
            rule, origin = rules.get(name), count_origin(name, app.scale, formation)
            if rule is not None:
                origin = f"autoscaling from {rule.least} to {rule.most}"
            found.append({"process_type": name, "count": count, "origin": origin})
        return found

    async def clear(self, call: Call) -> dict[str, Any]:
        await self._builder.forget_cache(call.app)
        return {"app": call.app.name}
