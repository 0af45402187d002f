"""Table `config_vars`: environment variables of apps, sealed at rest."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

from paasd import events
from paasd.database import Database, Transaction
from paasd.errors import InvalidInput
from paasd.models import MAX_CONFIG_VALUE, Actor, App, ConfigVarNeed, Secret
from paasd.names import config_key
from paasd.secrets import Vault

_GENERATED = 32
"""Bytes of a generated secret."""
RESERVED = ("PORT", "DYNO", "PAASD_")
"""Set by paasd itself; a user's value would only be overwritten."""


class ConfigVars:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def get(self, app: App) -> dict[str, Secret]:
        rows = await self._database.fetch(
            "SELECT name, value FROM config_vars WHERE organization_id = ? AND app_id = ? ORDER BY name",
            app.organization_id,
            app.id,
        )
        return {row["name"]: self._vault.open(row["value"], place(app, row["name"])) for row in rows}

    async def change(self, actor: Actor, app: App, changes: Mapping[str, Secret | None]) -> bool:
        """Set (a Secret) and unset (None) several at once; False when nothing differs. Raises InvalidInput."""
        for name, value in changes.items():
            _check(name, value)
        before = await self.get(app)
        after = {k: v for k, v in {**before, **changes}.items() if v is not None}
        if before == after:
            return False
        async with self._database.transaction() as tx:
            await self._change(tx, actor, app, changes)
        return True

    async def stage(self, actor: Actor, app: App, changes: Mapping[str, Secret | None]) -> None:
        """Keep changes until `apply`; what is staged twice has its last value. Raises InvalidInput."""
        for name, value in changes.items():
            _check(name, value)
        async with self._database.transaction() as tx:
            for name, value in changes.items():
                await tx.execute(
                    "INSERT OR REPLACE INTO staged_config_vars (organization_id, app_id, name, value)"
                    " VALUES (?, ?, ?, ?)",
                    app.organization_id,
                    app.id,
                    name,
                    self._vault.seal(value, _staged_place(app, name)) if value is not None else None,
                )
            await _tell(tx, "config.staged", actor, app, changes)

    async def staged(self, app: App) -> dict[str, Secret | None]:
        """What waits, by name; None unsets."""
        rows = await self._database.fetch(
            "SELECT name, value FROM staged_config_vars WHERE organization_id = ? AND app_id = ? ORDER BY name",
            app.organization_id,
            app.id,
        )
        return {
            row["name"]: self._vault.open(row["value"], _staged_place(app, row["name"])) if row["value"] else None
            for row in rows
        }

    async def apply(self, actor: Actor, app: App) -> dict[str, Secret | None]:
        """Make what is staged the app's config vars; returns it."""
        changes = await self.staged(app)
        async with self._database.transaction() as tx:
            await tx.execute("DELETE FROM staged_config_vars WHERE app_id = ?", app.id)
            if changes:
                await self._change(tx, actor, app, changes)
        return changes

    async def discard(self, actor: Actor, app: App) -> int:
        """Forget what is staged; returns how much it was."""
        async with self._database.transaction() as tx:
            return await tx.execute("DELETE FROM staged_config_vars WHERE app_id = ?", app.id)

    async def fill(self, actor: Actor, app: App, needs: Mapping[str, ConfigVarNeed]) -> dict[str, Secret]:
        """Give the app what its app.json has a value or a generator for and nobody has set; returns all config vars."""
        present = await self.get(app)
        new = {
            name: Secret(secrets.token_hex(_GENERATED) if need.generated else need.value)
            for name, need in needs.items()
            if name not in present and (need.generated or need.value)
        }
        return await self.get(app) if new and await self.change(actor, app, new) else present

    def restoring(self, app: App, config: Mapping[str, Secret]) -> Callable[[Transaction], Awaitable[None]]:
        """What a rollback adds to its transaction: the app's config vars become those of the release."""

        async def restore(tx: Transaction) -> None:
            await tx.execute("DELETE FROM config_vars WHERE app_id = ?", app.id)
            for name, value in config.items():
                await self._insert(tx, app, name, value)

        return restore

    async def _change(self, tx: Transaction, actor: Actor, app: App, changes: Mapping[str, Secret | None]) -> None:
        for name, value in changes.items():
            await tx.execute("DELETE FROM config_vars WHERE app_id = ? AND name = ?", app.id, name)
            if value is not None:
                await self._insert(tx, app, name, value)
        await _tell(tx, "config.changed", actor, app, changes)

    async def _insert(self, tx: Transaction, app: App, name: str, value: Secret) -> None:
        sealed = self._vault.seal(value, place(app, name))
        await tx.execute("INSERT INTO config_vars VALUES (?, ?, ?, ?)", app.organization_id, app.id, name, sealed)


def place(app: App, name: str) -> str:
    """Additional data that ties a sealed value to its row."""
    return f"{app.organization_id}|{app.id}|{name}"


def _staged_place(app: App, name: str) -> str:
    return f"{place(app, name)}|staged"


async def _tell(tx: Transaction, type: str, actor: Actor, app: App, changes: Mapping[str, Secret | None]) -> None:
    await events.record(
        tx,
        type,
        organization_id=app.organization_id,
        actor=actor.name,
        app=app.name,
        set=[name for name, value in changes.items() if value is not None],
        unset=[name for name, value in changes.items() if value is None],
    )


def _check(name: str, value: Secret | None) -> None:
    config_key(name)
    if value is None:
        return
    if name in RESERVED or name.startswith(RESERVED[-1]):
        raise InvalidInput(f"{name} is set by paasd itself", hint="Read it in your app; do not set it.")
    text = value.reveal()
    if len(text.encode("utf-8", "surrogatepass")) > MAX_CONFIG_VALUE or "\0" in text:
        raise InvalidInput(f"the value of {name} is over 64 KiB or holds a NUL character")
