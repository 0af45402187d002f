"""Table `global_domains`: domains under which every app has its name, beside the configuration's."""

from __future__ import annotations

from collections.abc import Sequence

from paasd import events
from paasd.config import HttpConfig
from paasd.database import Database, Transaction, now
from paasd.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from paasd.models import Actor
from paasd.names import shown
from paasd.route.host_claims import below
from paasd.route.host_names import both, host_name, lies_in
from paasd.route.local_ca import LOCAL_SUFFIXES

_MOST = 20
_LONGEST = 253 - 64
"""An app's name and a dot come before it."""


class GlobalDomains:
    def __init__(self, database: Database, http: HttpConfig) -> None:
        self._database = database
        self._http = http

    async def all(self) -> list[str]:
        """In the order they were added."""
        rows = await self._database.fetch("SELECT name FROM global_domains ORDER BY created_at, rowid")
        return [row["name"] for row in rows]

    async def add(self, actor: Actor, names: Sequence[str]) -> None:
        """All or none. Raises InvalidInput, AlreadyExists, Conflict."""
        async with self._database.transaction() as tx:
            for name in dict.fromkeys(map(_checked, names)):
                await self._add(tx, actor, name)

    async def remove(self, actor: Actor, name: str) -> None:
        """Raises NotFound."""
        async with self._database.transaction() as tx:
            await _remove(tx, actor, _checked(name))

    async def replace(self, actor: Actor, names: Sequence[str]) -> None:
        """These instead of those there are. All or none."""
        wanted = list(dict.fromkeys(map(_checked, names)))
        async with self._database.transaction() as tx:
            present = [row["name"] for row in await tx.fetch("SELECT name FROM global_domains")]
            for name in present:
                if name not in wanted:
                    await _remove(tx, actor, name)
            for name in wanted:
                if name not in present:
                    await self._add(tx, actor, name)

    async def _add(self, tx: Transaction, actor: Actor, name: str) -> None:
        present = [row["name"] for row in await tx.fetch("SELECT name FROM global_domains")]
        if name in (*present, self._http.domain.lower()):
            raise AlreadyExists(f"every app has its name under {both(name)} already")
        if len(present) == _MOST:
            raise Conflict(f"there are {_MOST} global domains already", hint="Remove one: domains:remove-global NAME")
        if self._http.panel and lies_in(self._http.panel.lower(), name):
            raise InvalidInput(f"{both(name)} has the host name of paasd itself in it", hint="Choose another one.")
        if taken := await below(tx, name):
            raise Conflict(
                f"{len(taken)} host names of apps lie in {both(name)}, such as {both(taken[0])}",
                hint="Remove them from their apps first: domains:remove APP NAME",
            )
        await tx.execute("INSERT INTO global_domains VALUES (?, ?, ?)", name, actor.name, now())
        await _record(tx, "global-domain.added", actor, name)


async def _remove(tx: Transaction, actor: Actor, name: str) -> None:
    if not await tx.execute("DELETE FROM global_domains WHERE name = ?", name):
        raise NotFound(f"{both(name)} is no global domain", hint="List them with: domains:report --global")
    await _record(tx, "global-domain.removed", actor, name)


async def _record(tx: Transaction, event: str, actor: Actor, name: str) -> None:
    await events.record(tx, event, organization_id=actor.organization_id, actor=actor.name, domain=name)


def _checked(name: str) -> str:
    """One label will do for domains of a network's own, such as `lan`. Raises InvalidInput."""
    found = host_name(name, least=1)
    if "." not in found and found not in LOCAL_SUFFIXES:
        raise InvalidInput(f"{shown(name)} is no domain of your own", hint="Use one such as apps.example.org.")
    if len(found) > _LONGEST:
        raise InvalidInput(f"{shown(name)} is longer than {_LONGEST} characters", hint="Names of apps come before it.")
    return found
