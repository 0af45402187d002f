"""When an app that nobody asks for is put to sleep: the settings, and the decision as a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paasd.app_settings import AppSettings, Family, Key, duration, of_families, one_of
from paasd.database import Database
from paasd.errors import InvalidInput
from paasd.models import Actor, App

_DEFAULT_HOLD = 30.0
_LONGEST_PAUSE, _SHORTEST_PAUSE = 15.0, 0.25
KEYS: Mapping[str, Key] = {
    "after": Key(duration(1, 30 * 86400), "Time without a request after which the app is put to sleep."),
    "hold": Key(duration(0, 300), "Time that a request waits for the app to wake (30s); then a page that retries."),
    "workers": Key(one_of("yes", "no"), "Whether the other process types sleep, too (no)."),
}
_FAMILY = Family("sleep", "sleep:set", "sleep setting", KEYS)


@dataclass(frozen=True)
class SleepRule:
    """Times in seconds."""

    after: float
    hold: float = _DEFAULT_HOLD
    workers: bool = False


@dataclass(frozen=True)
class Quiet:
    """Since when, on the monotonic clock, an app was not asked, and how often it had been asked until then."""

    since: float
    requests: int


def quiet(before: Quiet | None, requests: int, busy: bool, now: float) -> Quiet:
    """After one more look. A count that is lower than before is another Nginx's; that too was a reason to wait."""
    if before is None or busy or requests != before.requests:
        return Quiet(now, requests)
    return before


def pause(rules: Mapping[str, SleepRule]) -> float:
    """Seconds between two looks: a quarter of the shortest time that somebody waits for."""
    shortest = min((rule.after for rule in rules.values()), default=_LONGEST_PAUSE * 4)
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, shortest / 4))


class SleepRules:
    """The family `sleep` of the app's settings. No rule: the app never sleeps."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settings = AppSettings(database, _FAMILY)

    async def of(self, app: App) -> SleepRule | None:
        return _rule(await self._settings.get(app))

    async def all(self) -> dict[str, SleepRule]:
        """Of the whole box, by app id."""
        found = await of_families(self._database, _FAMILY.name)
        rules = {app_id: _rule(values) for (app_id, family), values in found.items() if family == _FAMILY.name}
        return {app_id: rule for app_id, rule in rules.items() if rule}

    async def hold(self, app: App) -> float:
        """Seconds that requests wait, also for one that sleeps though it has no rule any more."""
        rule = await self.of(app)
        return rule.hold if rule else _DEFAULT_HOLD

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None]) -> SleepRule:
        """Raises InvalidInput, also for settings of an app that is never put to sleep."""
        after = {**await self._settings.get(app)}
        after |= {_FAMILY.known(key): _FAMILY.checked(key, value) if value else "" for key, value in changes.items()}
        rule = _rule(after)
        if rule is None:
            raise InvalidInput(
                "when the app shall sleep is not said",
                hint=f"For example: sleep:set {app.name} after=30m; or turn it off: sleep:off {app.name}",
            )
        await self._settings.change(actor, app, changes)
        return rule

    async def unset(self, actor: Actor, app: App) -> None:
        await self._settings.change(actor, app, dict.fromkeys(KEYS))


def _rule(values: Mapping[str, str]) -> SleepRule | None:
    if not values.get("after"):
        return None
    return SleepRule(float(values["after"]), float(values.get("hold") or _DEFAULT_HOLD), values.get("workers") == "yes")
