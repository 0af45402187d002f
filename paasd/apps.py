"""Table `apps`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from paasd import events, projects
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import AlreadyExists, InvalidInput, NotFound
from paasd.models import Actor, App
from paasd.names import app_name, chosen_name, process_type, shown
from paasd.quota_gate import Asking, Gate, unlimited

ENVIRONMENTS = ("production", "staging", "preview")
MAX_SCALE = 50
RELEASE_TASK = "release"
"""The Procfile entry that runs before the switch and is never scaled."""
OnCreate = Callable[[Transaction, str], Awaitable[None]]
_SELECT = (
    "SELECT apps.*, projects.name AS project, releases.number AS release_number, EXISTS (SELECT 1 FROM instances"
    " WHERE instances.app_id = apps.id AND asleep_since IS NOT NULL AND state = 'live') AS asleep FROM apps"
    " JOIN projects ON projects.id = apps.project_id LEFT JOIN releases ON releases.id = apps.release_id"
)


class Apps:
    """Every look-up names the organization; an app of another one does not exist."""

    def __init__(self, database: Database, gate: Gate = unlimited) -> None:
        self._database = database
        self._gate = gate

    async def create(
        self,
        actor: Actor,
        name: str,
        *,
        project: str | None = None,
        environment: str = "production",
        also: OnCreate | None = None,
    ) -> App:
        """Raises InvalidInput, QuotaExceeded, or AlreadyExists when the name is taken on this box. `also` joins the
        transaction, for apps that are made and not chosen, whose names may be those of previews."""
        (app_name if also else chosen_name)(name)
        if project is not None:
            chosen_name(project)
        if environment not in ENVIRONMENTS:
            raise InvalidInput(f"invalid environment {shown(environment)}", hint="Use production, staging or preview.")
        app_id, asking = new_id(), Asking(actor.organization_id, project or name, actor.name, name)
        async with self._database.transaction() as tx, self._gate(tx, asking):
            await _refuse_taken(tx, name)
            owner = await projects.ensure(tx, actor.organization_id, project or name)
            await tx.execute(
                "INSERT INTO apps (id, organization_id, project_id, name, environment, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                app_id,
                actor.organization_id,
                owner.id,
                name,
                environment,
                now(),
            )
            if also:
                await also(tx, app_id)
            await events.record(tx, "app.created", organization_id=actor.organization_id, actor=actor.name, app=name)
        return await self.get(actor.organization_id, name)

    async def get(self, organization_id: str, name: str) -> App:
        """Raises NotFound, also for names outside the grammar."""
        row = await self._database.fetch_one(
            f"{_SELECT} WHERE apps.organization_id = ? AND apps.name = ?", organization_id, name
        )
        if row is None:
            raise NotFound(f"no app named {shown(name)}", hint="List the apps with: apps:list")
        return _app(row)

    async def refresh(self, app: App) -> App:
        """The app as it is now, also under another name. Raises NotFound when it was destroyed."""
        row = await self._database.fetch_one(
            f"{_SELECT} WHERE apps.organization_id = ? AND apps.id = ?", app.organization_id, app.id
        )
        if row is None:
            raise NotFound(f"{app.name} was destroyed", hint="List the apps with: apps:list")
        return _app(row)

    async def is_taken(self, name: str) -> bool:
        """Whether any app of the box has this name."""
        return await self._database.fetch_one("SELECT 1 FROM apps WHERE name = ?", name) is not None

    async def of(self, organization_id: str) -> list[App]:
        rows = await self._database.fetch(
            f"{_SELECT} WHERE apps.organization_id = ? ORDER BY apps.name", organization_id
        )
        return [_app(row) for row in rows]

    async def all(self) -> list[App]:
        """Every app on the box, for reconciling."""
        return [_app(row) for row in await self._database.fetch(f"{_SELECT} ORDER BY apps.name")]

    async def rename(self, actor: Actor, app: App, name: str) -> App:
        """Raises InvalidInput or AlreadyExists."""
        chosen_name(name)
        return await self.rename_back(actor, app, name)

    async def rename_back(self, actor: Actor, app: App, name: str) -> App:
        """To a name that an app had before, whatever today's grammar says of it. Raises AlreadyExists."""
        async with self._database.transaction() as tx:
            await _refuse_taken(tx, name)
            await tx.execute("UPDATE apps SET name = ? WHERE id = ?", name, app.id)
            await events.record(
                tx, "app.renamed", organization_id=app.organization_id, actor=actor.name, app=name, before=app.name
            )
        return await self.refresh(app)

    async def destroy(self, actor: Actor, app: App) -> bool:
        """Remove the row and everything in the database that hangs on it, its project too if it was the last app of
        it. True if the project went."""
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE apps SET release_id = NULL WHERE id = ?", app.id)
            if not await tx.execute("DELETE FROM apps WHERE id = ?", app.id):
                raise NotFound(f"{app.name} was destroyed", hint="List the apps with: apps:list")
            await events.record(
                tx, "app.destroyed", organization_id=app.organization_id, actor=actor.name, app=app.name
            )
            return await projects.remove_if_empty(tx, app.project_id)

    async def set_deploy_branch(self, app: App, branch: str) -> None:
        await self._set(app, "deploy_branch", branch)

    async def set_scale(self, actor: Actor, app: App, scale: Mapping[str, int]) -> App:
        """Merge new counts into the app's scale. Raises InvalidInput, QuotaExceeded."""
        for name, count in scale.items():
            process_type(name)
            if not 0 <= count <= MAX_SCALE:
                raise InvalidInput(f"{name}={count} is out of range", hint=f"Use 0 to {MAX_SCALE} instances.")
        merged = {**app.scale, **scale}
        asking = Asking(app.organization_id, app.project, actor.name, app.name)
        async with self._database.transaction() as tx, self._gate(tx, asking):
            await tx.execute("UPDATE apps SET scale = ? WHERE id = ?", json.dumps(merged), app.id)
            await events.record(
                tx,
                "app.scaled",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                scale=dict(scale),
            )
        return await self.refresh(app)

    async def lock(self, actor: Actor, app: App, reason: str | None) -> App:
        """Refuse deployments from now on, or (None) take them again. Raises InvalidInput."""
        if reason is not None and (not reason.isprintable() or not 0 < len(reason) <= 200):
            raise InvalidInput("a reason is printable text of at most 200 characters")
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE apps SET lock_reason = ? WHERE id = ?", reason, app.id)
            await events.record(
                tx,
                "app.unlocked" if reason is None else "app.locked",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                **({} if reason is None else {"reason": reason}),
            )
        return await self.refresh(app)

    async def checks(self, app: App) -> dict[str, Any]:
        """What `checks:set` and `checks:disable` said, by process type: settings by type of check, and under `off` the
        types that are not checked."""
        row = await self._database.fetch_one("SELECT checks FROM apps WHERE id = ?", app.id)
        return dict(json.loads(row["checks"])) if row else {}

    async def all_checks(self) -> dict[str, dict[str, Any]]:
        """The same of every app on the box for which it said something, by app id."""
        rows = await self._database.fetch("SELECT id, checks FROM apps WHERE checks != '{}'")
        return {row["id"]: json.loads(row["checks"]) for row in rows}

    async def set_checks(self, actor: Actor, app: App, checks: Mapping[str, Any]) -> None:
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE apps SET checks = ? WHERE id = ?", json.dumps(checks), app.id)
            await events.record(tx, "checks.set", organization_id=app.organization_id, actor=actor.name, app=app.name)

    async def _set(self, app: App, column: str, value: str | int) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(f"UPDATE apps SET {column} = ? WHERE id = ?", value, app.id)  # noqa: S608 - our own names


def count_of(scale: Mapping[str, int], name: str) -> int:
    """Instances wanted of a process type: `web` starts with one, the others with none (as on Heroku and Dokku)."""
    return scale.get(name, 1 if name == "web" else 0)


def count_origin(name: str, scale: Mapping[str, int], formation: Mapping[str, int]) -> str:
    """Who decides how many instances of a process type there are, and who is not heard because of that."""
    if name in scale:
        return f"ps:scale, over app.json: {formation[name]}" if name in formation else "ps:scale"
    return "app.json formation" if name in formation else "default"


def wanted_counts(names: Iterable[str], scale: Mapping[str, int], formation: Mapping[str, int]) -> dict[str, int]:
    """Instances wanted of each of a release's process types: what `ps:scale` (or autoscaling) said of it, and for those
    that nobody scaled app.json's `formation`."""
    said = {**formation, **scale}
    return {name: count_of(said, name) for name in names if name != RELEASE_TASK}


async def _refuse_taken(tx: Transaction, name: str) -> None:
    if await tx.fetch_one("SELECT 1 FROM apps WHERE name = ?", name):
        raise AlreadyExists(f"the name {name} is taken", hint="Choose another name.")


def _app(row: Row) -> App:
    return App(
        id=row["id"],
        organization_id=row["organization_id"],
        project_id=row["project_id"],
        project=row["project"],
        name=row["name"],
        environment=row["environment"],
        deploy_branch=row["deploy_branch"],
        release_id=row["release_id"],
        release_number=row["release_number"],
        stopped=bool(row["stopped"]),
        scale=json.loads(row["scale"]),
        created_at=row["created_at"],
        lock_reason=row["lock_reason"],
        asleep=bool(row["asleep"]),
        postdeploy_at=row["postdeploy_at"],
    )
