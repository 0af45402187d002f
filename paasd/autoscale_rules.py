"""How many instances of a process type there should be for its load: the settings, and the decision as a pure function.

The formula is that of the Kubernetes autoscaler: the present count times what is seen over what is wanted, rounded up,
and nothing within a tenth of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paasd.app_settings import AppSettings, Check, Family, Key, duration, of_families, whole
from paasd.apps import MAX_SCALE
from paasd.database import Database
from paasd.errors import InvalidInput
from paasd.models import Actor, App
from paasd.names import process_type as checked_process_type

COMMAND = "autoscale:set"
_PREFIX = "autoscale."
_TOLERANCE = 0.1
_DEFAULT_COOLDOWN = 300.0


def _percent(value: str) -> str:
    return whole(1, 100, "a percentage of the limit")(value.strip().removesuffix("%").strip())


def _rate(value: str) -> str:
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 1_000_000:
        raise ValueError("requests per second and instance, from 0.01")
    return f"{rate:g}"


_counts: Check = whole(1, MAX_SCALE, "a number of instances")
KEYS: Mapping[str, Key] = {
    "min": Key(_counts, "Fewest instances (1)."),
    "max": Key(_counts, "Most instances."),
    "cpu": Key(_percent, "Percent of its CPU limit that an instance should use on average."),
    "memory": Key(_percent, "The same of its memory limit."),
    "rps": Key(_rate, "Requests per second that an instance should answer; web only."),
    "p95": Key(duration(0.001, 600), "Time that 95 of 100 requests should not exceed; web only."),
    "cooldown": Key(duration(1, 86400), "Time in which fewer must have been enough before instances go (5m)."),
}
_TARGETS = ("cpu", "memory", "rps", "p95")
_OF_THE_EDGE = ("rps", "p95")


@dataclass(frozen=True)
class Rule:
    """Times in seconds, `cpu` and `memory` in percent of the limit; None: not looked at."""

    most: int
    least: int = 1
    cpu: float | None = None
    memory: float | None = None
    rps: float | None = None
    p95: float | None = None
    cooldown: float = _DEFAULT_COOLDOWN

    @property
    def asks_edge(self) -> bool:
        return self.rps is not None or self.p95 is not None

    @property
    def asks_driver(self) -> bool:
        return self.cpu is not None or self.memory is not None


@dataclass(frozen=True)
class Load:
    """What was seen. None: not known, and no reason for anything."""

    cpu: float | None = None
    """Mean of the instances, in percent of the limit."""
    memory: float | None = None
    rps: float | None = None
    """Of all instances together."""
    p95: float | None = None
    """In seconds; 0 without requests."""


@dataclass(frozen=True)
class Recommendation:
    count: int
    reason: str


def recommend(rule: Rule, current: int, load: Load) -> Recommendation:
    """The highest count that any of the targets asks for, within the bounds, and why."""
    asked = [
        *_by_use("cpu", load.cpu, rule.cpu, current),
        *_by_use("memory", load.memory, rule.memory, current),
        *_by_rate(load.rps, rule.rps, current),
        *_by_latency(load.p95, rule.p95, current),
    ]
    wanted = max(asked, key=lambda one: one.count, default=Recommendation(current, "nothing was seen"))
    # As one step; the next look may double it again.
    count = min(wanted.count, max(2 * current, current + 4))
    if count < rule.least:
        return Recommendation(rule.least, f"{wanted.reason}; min is {rule.least}")
    if count > rule.most:
        return Recommendation(rule.most, f"{wanted.reason}; max is {rule.most}")
    return Recommendation(count, wanted.reason)


def decide(rule: Rule, current: int, seen: Sequence[tuple[float, Recommendation]], now: float) -> Recommendation | None:
    """What to do after these recommendations, oldest first, the newest just made: None to leave it as it is. More
    instances come at once, fewer when no more were recommended during the whole cool-down."""
    latest = seen[-1][1]
    if latest.count > current:
        return latest
    if current > rule.most:
        return Recommendation(rule.most, f"max is {rule.most}")
    if latest.count == current or seen[0][0] > now - rule.cooldown:
        return None
    highest = max((one for at, one in seen if at > now - rule.cooldown), key=lambda one: one.count)
    if highest.count >= current:
        return None
    return Recommendation(highest.count, f"for {rule.cooldown:g} s no more were needed: {latest.reason}")


def _by_use(what: str, seen: float | None, target: float | None, current: int) -> list[Recommendation]:
    if seen is None or target is None:
        return []
    told = f"{what} {seen:.0f} % of the limit, target {target:g} %"
    return [Recommendation(_scaled(current, seen / target), told)]


def _by_rate(seen: float | None, target: float | None, current: int) -> list[Recommendation]:
    if seen is None or target is None:
        return []
    told = f"{seen:.3g} requests/s, target {target:g} an instance"
    return [Recommendation(_scaled(current, seen / current / target), told)]


def _by_latency(seen: float | None, target: float | None, current: int) -> list[Recommendation]:
    """Twice as many instances are not twice as quick: up as the others, down one by one."""
    if seen is None or target is None:
        return []
    told = f"p95 {seen:.3g} s, target {target:g} s" if seen else f"no requests, p95 target {target:g} s"
    count = _scaled(current, min(seen / target, 2.0))
    return [Recommendation(max(count, current - 1, 1), told)]


def _scaled(current: int, ratio: float) -> int:
    if abs(ratio - 1) <= _TOLERANCE:
        return current
    return max(1, math.ceil(current * ratio - 1e-9))


class AutoscaleRules:
    """The families `autoscale.<process type>` of the app's settings, over app.json of the live release."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, app: App) -> dict[str, Rule]:
        """By process type."""
        return (await self.all()).get(app.id, {})

    async def all(self) -> dict[str, dict[str, Rule]]:
        """Of the whole box, by app id and process type."""
        values = await self._of_releases()
        for (app_id, family), own in (await of_families(self._database, _PREFIX)).items():
            types = values.setdefault(app_id, {})
            process_type = family.removeprefix(_PREFIX)
            types[process_type] = {**types.get(process_type, {}), **own}
        return {app_id: {name: _rule(one) for name, one in types.items()} for app_id, types in values.items()}

    async def _of_releases(self) -> dict[str, dict[str, dict[str, str]]]:
        """What app.json says in the releases that are live."""
        rows = await self._database.fetch(
            "SELECT apps.id, releases.app_json FROM apps JOIN releases ON releases.id = apps.release_id"
            " WHERE instr(releases.app_json, '\"autoscaling\"')"
        )
        return {row["id"]: json.loads(row["app_json"]).get("autoscaling", {}) for row in rows}

    async def change(self, actor: Actor, app: App, process_type: str, changes: Mapping[str, str | None]) -> None:
        """Raises InvalidInput, also for what does not make a rule together with what was set before."""
        settings = self._settings(process_type)
        family = settings.family
        in_release = (await self._of_releases()).get(app.id, {}).get(process_type, {})
        after = {**in_release, **await settings.get(app)}
        after |= {family.known(key): family.checked(key, value) if value else "" for key, value in changes.items()}
        _check(process_type, {key: value for key, value in after.items() if value})
        await settings.change(actor, app, changes)

    async def unset(self, actor: Actor, app: App, process_type: str) -> None:
        settings = self._settings(process_type)
        await settings.change(actor, app, dict.fromkeys(await settings.get(app)))

    def _settings(self, process_type: str) -> AppSettings:
        return AppSettings(self._database, _family(process_type))


def checked_rule(process_type: str, values: Mapping[str, str]) -> dict[str, str]:
    """A whole rule, its values in their usual form. Raises InvalidInput."""
    family = _family(process_type)
    found = {family.known(key): family.checked(key, value) for key, value in values.items()}
    _check(process_type, found)
    return found


def _family(process_type: str) -> Family:
    return Family(f"{_PREFIX}{checked_process_type(process_type)}", COMMAND, "autoscale setting", KEYS)


def _check(process_type: str, values: Mapping[str, str]) -> None:
    if "max" not in values:
        raise InvalidInput("autoscaling needs a max", hint="For example: autoscale:set blog web max=10 cpu=70")
    if int(values.get("min", 1)) > int(values["max"]):
        raise InvalidInput(f"min={values['min']} is more than max={values['max']}")
    if not any(key in values for key in _TARGETS):
        raise InvalidInput(f"autoscaling needs one of {', '.join(_TARGETS)}", hint="For example: cpu=70")
    of_edge = [key for key in _OF_THE_EDGE if key in values]
    if process_type != "web" and of_edge:
        raise InvalidInput(f"{of_edge[0]} is known of web only: {process_type} gets no requests from the edge")


def _rule(values: Mapping[str, str]) -> Rule:
    def number(key: str) -> float | None:
        return float(values[key]) if key in values else None

    return Rule(
        most=int(values.get("max", MAX_SCALE)),
        least=int(values.get("min", 1)),
        cpu=number("cpu"),
        memory=number("memory"),
        rps=number("rps"),
        p95=number("p95"),
        cooldown=number("cooldown") or _DEFAULT_COOLDOWN,
    )
