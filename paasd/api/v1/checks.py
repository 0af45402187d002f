"""Health checks of an app: what is set beside its app.json, what was seen, asking them now, switching them off."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.apps import Apps
from paasd.check_grammar import SETTINGS, CheckType, check_settings
from paasd.checks import EVERY_TYPE, OFF, laid_over, merged, misfits
from paasd.errors import InvalidInput
from paasd.health_watch import HealthWatch
from paasd.identity.policy import Action
from paasd.names import process_type, shown
from paasd.release import Releases

_Value = str | int | float | bool | list[str] | list[dict[str, str]] | None


class CheckChange(Body):
    process_type: str = "web"
    type: str = "startup"
    settings: dict[str, _Value]


class CheckSwitch(Body):
    process_type: str | None = None
    """All, unless one is named."""
    type: str | None = None
    """All, unless one is named."""
    enabled: bool


class ChecksResource:
    def __init__(self, apps: Apps, releases: Releases, watch: HealthWatch) -> None:
        self._apps = apps
        self._releases = releases
        self._watch = watch

    def operations(self) -> Sequence[Operation]:
        path, read, change = "/apps/{app}/checks", Action.APP_READ, Action.APP_CONFIGURE
        return [
            Operation("GET", path, read, self.report, "Checks, what was set, and what was seen of each live instance"),
            Operation("PATCH", path, change, self.change, "Set the first check of a type", CheckChange),
            Operation("PUT", f"{path}/enabled", change, self.switch, "Switch checks on or off", CheckSwitch),
            Operation("POST", f"{path}/run", change, self.run, "Ask all checks of all live instances now"),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        release = await self._releases.current(call.app)
        said = await self._apps.checks(call.app)
        live = merged(release.checks, said) if release else {}
        instances = await self._watch.report(call.app)
        for check in (check for instance in instances for check in instance["checks"]):
            for sample in check["history"]:
                sample["at"] = instant(sample["at"])
        return {"live": live, "set": said, "settings": SETTINGS, "instances": instances}

    async def change(self, call: Call) -> dict[str, Any]:
        """Startup checks count from the next deployment on, the others at once."""
        body: CheckChange = call.body
        name, kind = process_type(body.process_type), _kind(body.type)
        check_settings(body.settings)
        if kind is CheckType.LIVENESS and body.settings.get("uptime"):
            raise InvalidInput("a liveness check that waits for an uptime would restart the instance for ever")
        if kind is CheckType.LIVENESS and body.settings.get("successes"):
            raise InvalidInput(
                "a liveness check passes at the first success: an instance that is alive is not restarted"
            )
        said = await self._apps.checks(call.app)
        laid = laid_over(said.get(name, {}).get(kind, {}), body.settings)
        check = {key: value for key, value in laid.items() if value is not None}
        check_settings(check)
        await self._refuse_misfits(call, name, kind, check)
        said[name] = {**said.get(name, {}), kind: check}
        await self._apps.set_checks(call.actor, call.app, _without_empty(said))
        return await self.report(call)

    async def _refuse_misfits(self, call: Call, name: str, kind: CheckType, check: Mapping[str, Any]) -> None:
        """What the first check of the live release, which this changes, could not do anything with."""
        release = await self._releases.current(call.app)
        if release is None or not (found := misfits(release.checks.get(name, ()), kind, check)):
            return
        command = f"checks:set {call.app.name} {name} --type {kind}"
        raise InvalidInput(
            f"{found[0]} is for checks with a path, and the first {kind} check of {name} in app.json has none",
            hint=f"To ask a path in its place: {command} --path / --{found[0]} {shlex.quote(str(check[found[0]]))}."
            f" To have no {found[0]}: {command} --{found[0]} ''",
        )

    async def switch(self, call: Call) -> dict[str, Any]:
        body: CheckSwitch = call.body
        name = process_type(body.process_type) if body.process_type else EVERY_TYPE
        kinds = {str(_kind(body.type))} if body.type else {str(kind) for kind in CheckType}
        said = await self._apps.checks(call.app)
        if body.enabled:
            everywhere = set(said.get(EVERY_TYPE, {}).get(OFF, ()))
            if name != EVERY_TYPE and everywhere & kinds:
                raise InvalidInput(
                    f"these checks are off for all process types, not only for {name}",
                    hint=f"Switch them on with: checks:enable {call.app.name}",
                )
            for entry in said.values() if name == EVERY_TYPE else [said.get(name, {})]:
                entry[OFF] = sorted(set(entry.get(OFF, ())) - kinds)
        else:
            entry = said.setdefault(name, {})
            entry[OFF] = sorted({*entry.get(OFF, ()), *kinds})
        await self._apps.set_checks(call.actor, call.app, _without_empty(said))
        return await self.report(call)

    async def run(self, call: Call) -> dict[str, Any]:
        return {"items": await self._watch.run(call.app)}


def _kind(text: str) -> CheckType:
    if text not in list(CheckType):
        raise InvalidInput(f"there is no type of check {shown(text)}", hint="Use startup, liveness or readiness.")
    return CheckType(text)


def _without_empty(said: dict[str, Any]) -> dict[str, Any]:
    kept = {name: {key: value for key, value in entry.items() if value} for name, entry in said.items()}
    return {name: entry for name, entry in kept.items() if entry}
