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
            for name, value in changes.items():
                await tx.execute("DELETE FROM config_vars WHERE app_id = ? AND name = ?", app.id, name)
                if value is not None:
                    await self._insert(tx, app, name, value)
            await events.record(
                tx,
                "config.changed",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                set=[k for k, v in changes.items() if v is not None],
                unset=[k for k, v in changes.items() if v is None],
            )
        return True

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

    async def _insert(self, tx: Transaction, app: App, name: str, value: Secret) -> None:
        sealed = self._vault.seal(value, place(app, name))
        await tx.execute("INSERT INTO config_vars VALUES (?, ?, ?, ?)", app.organization_id, app.id, name, sealed)


def place(app: App, name: str) -> str:
    """Additional data that ties a sealed value to its row."""
    return f"{app.organization_id}|{app.id}|{name}"


def _check(name: str, value: Secret | None) -> None:
    config_key(name)
    if value is None:
        return
    if name in RESERVED or name.startswith(RESERVED[-1]):
        raise InvalidInput(f"{name} is set by paasd itself", hint="Read it in your app; do not set it.")
    text = value.reveal()
    if len(text.encode("utf-8", "surrogatepass")) > MAX_CONFIG_VALUE or "\0" in text:
        raise InvalidInput(f"the value of {name} is over 64 KiB or holds a NUL character")
