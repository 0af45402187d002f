"""Table `authority_keys`: keys that the box itself has, sealed. Its accounts with ACME authorities are called by the
URL of the directory, its own authority `local`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from paasd.database import Database, now
from paasd.models import Secret
from paasd.secrets import Vault


@dataclass(frozen=True)
class AuthorityKey:
    name: str
    key: Secret
    """PEM."""
    uri: str = ""
    """Of the account."""
    certificate: str = ""
    """PEM of the box's own root."""


class AuthorityKeys:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def get(self, name: str) -> AuthorityKey | None:
        row = await self._database.fetch_one("SELECT * FROM authority_keys WHERE name = ?", name)
        if row is None:
            return None
        key = await asyncio.to_thread(self._vault.open, row["private_key"], _place(name))
        return AuthorityKey(name, key, row["uri"], row["certificate"])

    async def put(self, key: AuthorityKey) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(
                "INSERT INTO authority_keys (name, private_key, uri, certificate, created_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET private_key = excluded.private_key, uri = excluded.uri,"
                " certificate = excluded.certificate",
                key.name,
                self._vault.seal(key.key, _place(key.name)),
                key.uri,
                key.certificate,
                now(),
            )


def _place(name: str) -> str:
    return f"box|authority|{name}"
