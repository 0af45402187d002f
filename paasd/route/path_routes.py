"""Table `path_routes`: paths of an app that another app of its project answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from paasd import events
from paasd.database import Database, Transaction, now
from paasd.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from paasd.models import Actor, App
from paasd.names import shown

_MOST = 100
_LONGEST = 200
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~@=,-]+)+")


@dataclass(frozen=True)
class PathRoute:
    prefix: str
    """`/api`: for `/api` itself and what is below it."""
    app_name: str
    """The other app, under its present name."""
    strip: bool
    """Whether the prefix is taken off the path that the other app sees."""


class PathRoutes:
    """Rows go with either app."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, app: App) -> list[PathRoute]:
        """Longest prefix first, which is the one that wins."""
        rows = await self._database.fetch(
            "SELECT prefix, apps.name AS other, strip FROM path_routes JOIN apps ON apps.id = other_id"
            " WHERE app_id = ? AND path_routes.organization_id = ? ORDER BY length(prefix) DESC, prefix",
            app.id,
            app.organization_id,
        )
        return [PathRoute(row["prefix"], row["other"], bool(row["strip"])) for row in rows]

    async def leading_to(self, app: App) -> set[str]:
        """Ids of the apps that have routes to this one."""
        rows = await self._database.fetch(
            "SELECT app_id FROM path_routes WHERE other_id = ? AND organization_id = ?", app.id, app.organization_id
        )
        return {row["app_id"] for row in rows}

    async def add(self, actor: Actor, app: App, prefix: str, other: App, *, strip: bool = False) -> PathRoute:
        """Raises InvalidInput, AlreadyExists, Conflict."""
        added = PathRoute(checked_prefix(prefix), other.name, strip)
        if other.id == app.id or (other.organization_id, other.project_id) != (app.organization_id, app.project_id):
            raise InvalidInput(
                f"{other.name} is no other app of the project {app.project}",
                hint=f"Only apps of one project share paths; make one in it: apps:create NAME --project {app.project}",
            )
        async with self._database.transaction() as tx:
            present = [row["prefix"] for row in await tx.fetch("SELECT * FROM path_routes WHERE app_id = ?", app.id)]
            if added.prefix in present:
                raise AlreadyExists(
                    f"{app.name} has a route for {added.prefix} already",
                    hint=f"Remove it first: routes:remove {app.name} {added.prefix}",
                )
            if len(present) >= _MOST:
                raise Conflict(f"{app.name} has {_MOST} routes already", hint="Remove some: routes:remove")
            if len(await tx.fetch("SELECT 1 FROM apps WHERE id IN (?, ?)", app.id, other.id)) < 2:
                raise NotFound(f"{app.name} or {other.name} was destroyed", hint="List the apps with: apps:list")
            await _insert(tx, actor, app, added, other)
        return added

    async def put_back(self, actor: Actor, app: App, removed: PathRoute, other: App) -> None:
        """One that was removed a moment ago, as it was, whatever today's grammar and rules say of it."""
        async with self._database.transaction() as tx:
            await _insert(tx, actor, app, removed, other)

    async def remove(self, actor: Actor, app: App, prefix: str) -> PathRoute:
        """Raises NotFound."""
        path = checked_prefix(prefix)
        found = next((route for route in await self.of(app) if route.prefix == path), None)
        async with self._database.transaction() as tx:
            gone = await tx.execute("DELETE FROM path_routes WHERE app_id = ? AND prefix = ?", app.id, path)
            if not gone or found is None:
                raise NotFound(f"{app.name} has no route for {path}", hint=f"List them with: routes:list {app.name}")
            await events.record(
                tx,
                "route.removed",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                prefix=path,
                to=found.app_name,
            )
        return found


async def _insert(tx: Transaction, actor: Actor, app: App, added: PathRoute, other: App) -> None:
    await tx.execute(
        "INSERT INTO path_routes (app_id, prefix, organization_id, other_id, strip, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        app.id,
        added.prefix,
        app.organization_id,
        other.id,
        added.strip,
        now(),
    )
    await events.record(
        tx,
        "route.added",
        organization_id=app.organization_id,
        actor=actor.name,
        app=app.name,
        prefix=added.prefix,
        to=other.name,
        strip=added.strip,
    )


def policy(routes: Sequence[PathRoute]) -> list[dict[str, object]] | None:
    """The part `routes` of an app's policy at the edge; None without any."""
    return [{"prefix": each.prefix, "app": each.app_name, "strip": each.strip} for each in routes] or None


def checked_prefix(value: str) -> str:
    """A path without a slash at its end. Raises InvalidInput."""
    path = value[:-1] if len(value) > 1 and value.endswith("/") else value
    if len(path) > _LONGEST or not _PREFIX.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise InvalidInput(
            f"invalid path {shown(value)}",
            hint="Use one such as /api or /shop/v2: letters, digits and . _ ~ @ = , -",
        )
    return path
