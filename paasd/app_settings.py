"""Table `app_settings`: what was set for an app, by family (`build`, `deploy`) and key; how such values are checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from paasd import events
from paasd.database import Database, Transaction, now
from paasd.errors import InvalidInput
from paasd.models import Actor, App
from paasd.names import shown
from paasd.quota_gate import Asking, Gate, unlimited

Check = Callable[[str], str]
"""Returns a value in its usual form; raises ValueError saying what it must be."""

Also = Callable[[Transaction], Awaitable[None]]
"""Part of the same transaction."""

_DURATION = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


PRIVATE = ("cache-name", "numbered", "snippet")
"""Keys that are not everybody's to set, and not copied."""


@dataclass(frozen=True)
class Key:
    check: Check
    description: str
    shown: Callable[[str], str] = str
    """What of the value people get to see."""


@dataclass(frozen=True)
class Family:
    """Settings that belong together, and the command that sets them."""

    name: str
    command: str
    noun: str
    """What people call one of them, as `build setting`."""
    keys: Mapping[str, Key]

    def known(self, key: str) -> str:
        """Raises InvalidInput for a setting that does not exist."""
        if key not in self.keys:
            raise InvalidInput(f"there is no {self.noun} {shown(key)}", hint=f"There are: {', '.join(self.keys)}")
        return key

    def checked(self, key: str, value: str) -> str:
        """A setting's value in its usual form. Raises InvalidInput."""
        try:
            return self.keys[self.known(key)].check(value)
        except ValueError as error:
            raise InvalidInput(f"{key} must be {error}, not {shown(value)}") from None


class AppSettings:
    """The settings of one family."""

    def __init__(self, database: Database, family: Family) -> None:
        self._database = database
        self.family = family

    async def get(self, app: App) -> dict[str, str]:
        """What was set, by key."""
        rows = await self._database.fetch(
            "SELECT key, value FROM app_settings WHERE app_id = ? AND organization_id = ? AND family = ? ORDER BY key",
            app.id,
            app.organization_id,
            self.family.name,
        )
        return {row["key"]: row["value"] for row in rows if row["key"] in self.family.keys}

    async def change(
        self,
        actor: Actor,
        app: App,
        changes: Mapping[str, str | None],
        gate: Gate = unlimited,
        also: Also | None = None,
    ) -> dict[str, str]:
        """All changes or none, and what is `also` to be done with them; None or an empty value takes a setting away.
        Raises InvalidInput."""
        wanted = await asyncio.to_thread(self._checked, changes)  # a check may read files, as those of time zones
        asking = Asking(app.organization_id, app.project, actor.name, app.name)
        async with self._database.transaction() as tx, gate(tx, asking):
            await self.write(tx, actor, app, wanted)
            if also:
                await also(tx)
        return await self.get(app)

    async def put_back(self, actor: Actor, app: App, stored: Mapping[str, str | None]) -> None:
        """What was stored before a change that is undone, whatever today's grammar says of it."""
        async with self._database.transaction() as tx:
            await self.write(tx, actor, app, stored)

    async def write(self, tx: Transaction, actor: Actor, app: App, values: Mapping[str, str | None]) -> None:
        """As part of another change; checked by the caller."""
        for key, value in values.items():
            await put(tx, app, self.family.name, key, value)
        await events.record(
            tx,
            self.family.command.replace(":", "."),
            organization_id=app.organization_id,
            actor=actor.name,
            app=app.name,
            keys=" ".join(sorted(values)),
        )

    def _checked(self, changes: Mapping[str, str | None]) -> dict[str, str | None]:
        family = self.family
        return {family.known(key): family.checked(key, value) if value else None for key, value in changes.items()}


async def copy_settings(
    tx: Transaction, app: App, other: App, families: Collection[str] = (), without: Collection[str] = ()
) -> None:
    """Give `other` the settings that `app` has, of these families or of all, `without` some keys."""
    rows = await tx.fetch("SELECT family, key, value FROM app_settings WHERE app_id = ?", app.id)
    for row in rows:
        if (not families or row["family"] in families) and row["key"] not in (*PRIVATE, *without):
            await put(tx, other, row["family"], row["key"], row["value"])


async def of_families(database: Database, prefix: str) -> dict[tuple[str, str], dict[str, str]]:
    """What was set on the whole box in families whose names begin so, by app id and family."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    rows = await database.fetch(
        "SELECT app_id, family, key, value FROM app_settings WHERE substr(family, 1, ?) = ?", len(prefix), prefix
    )
    for row in rows:
        found.setdefault((row["app_id"], row["family"]), {})[row["key"]] = row["value"]
    return found


async def put(tx: Transaction, app: App, family: str, key: str, value: str | None) -> None:
    """Write or take away one value, checked by the caller."""
    await tx.execute("DELETE FROM app_settings WHERE app_id = ? AND family = ? AND key = ?", app.id, family, key)
    if value:
        await tx.execute(
            "INSERT INTO app_settings (organization_id, app_id, family, key, value, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            app.organization_id,
            app.id,
            family,
            key,
            value,
            now(),
        )


def matching(pattern: re.Pattern[str], what: str) -> Check:
    def check(value: str) -> str:
        if not pattern.fullmatch(value.strip()):
            raise ValueError(what)
        return value.strip()

    return check


def one_of(*values: str) -> Check:
    def check(value: str) -> str:
        if value.strip().lower() not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return value.strip().lower()

    return check


def words(check: Callable[[str], object], what: str) -> Check:
    """Words separated by spaces or commas, each once."""

    def check_all(value: str) -> str:
        try:
            found = [word for word in re.split(r"[\s,]+", value) if word and (check(word), True)[1]]
        except (ValueError, InvalidInput):
            raise ValueError(what) from None
        return " ".join(dict.fromkeys(found))

    return check_all


def whole(least: int, most: int, what: str) -> Check:
    def check(value: str) -> str:
        if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
            raise ValueError(f"{what}, {least} to {most}")
        return str(int(value))

    return check


def duration(least: float, most: float) -> Check:
    """`30`, `30s`, `5m`, `2h`: seconds, kept as a plain number of them."""

    def check(value: str) -> str:
        found = _DURATION.fullmatch(value.strip())
        seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else -1.0
        if not least <= seconds <= most:
            raise ValueError(f"a time such as 30s, 5m or 2h, from {least:g} s to {most:g} s")
        return f"{seconds:g}" if seconds < 1000 else str(round(seconds))

    return check
