"""Tables `pipelines` and `pipeline_apps`: which apps an image moves along, by their environments."""

from __future__ import annotations

from dataclasses import dataclass

from paasd import events
from paasd.apps import ENVIRONMENTS, Apps
from paasd.database import Database, Row, new_id, now
from paasd.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from paasd.models import Actor, App
from paasd.names import chosen_name, shown

_ORDER = ("preview", "staging", "production")


@dataclass(frozen=True)
class Pipeline:
    id: str
    name: str
    apps: tuple[App, ...]
    """From the first environment to the last."""

    def after(self, app: App) -> list[App]:
        """The apps of the next environment that has any."""
        for environment in _ORDER[_ORDER.index(app.environment) + 1 :]:
            if found := [other for other in self.apps if other.environment == environment]:
                return found
        return []


class Pipelines:
    def __init__(self, database: Database, apps: Apps) -> None:
        self._database = database
        self._apps = apps

    async def create(self, actor: Actor, name: str) -> Pipeline:
        """Raises InvalidInput or AlreadyExists."""
        chosen_name(name)
        async with self._database.transaction() as tx:
            taken = await tx.fetch_one(
                "SELECT 1 FROM pipelines WHERE organization_id = ? AND name = ?", actor.organization_id, name
            )
            if taken:
                raise AlreadyExists(f"there is a pipeline {name} already", hint="List them with: pipelines")
            await tx.execute(
                "INSERT INTO pipelines (id, organization_id, name, created_at) VALUES (?, ?, ?, ?)",
                new_id(),
                actor.organization_id,
                name,
                now(),
            )
            await events.record(
                tx, "pipeline.created", organization_id=actor.organization_id, actor=actor.name, pipeline=name
            )
        return await self.get(actor, name)

    async def get(self, actor: Actor, name: str) -> Pipeline:
        """Raises NotFound."""
        row = await self._database.fetch_one(
            "SELECT * FROM pipelines WHERE organization_id = ? AND name = ?", actor.organization_id, name
        )
        if row is None:
            raise NotFound(f"no pipeline named {shown(name)}", hint="List them with: pipelines")
        return await self._pipeline(actor.organization_id, row)

    async def of(self, actor: Actor) -> list[Pipeline]:
        rows = await self._database.fetch(
            "SELECT * FROM pipelines WHERE organization_id = ? ORDER BY name", actor.organization_id
        )
        return [await self._pipeline(actor.organization_id, row) for row in rows]

    async def add(self, actor: Actor, name: str, app: App, environment: str) -> Pipeline:
        """Put an app at its place; it belongs to one pipeline at most. Raises InvalidInput."""
        if environment not in ENVIRONMENTS:
            raise InvalidInput(f"{shown(environment)} is no environment", hint="Use production, staging or preview.")
        pipeline = await self.get(actor, name)
        async with self._database.transaction() as tx:
            await tx.execute("DELETE FROM pipeline_apps WHERE app_id = ?", app.id)
            await tx.execute("INSERT INTO pipeline_apps (app_id, pipeline_id) VALUES (?, ?)", app.id, pipeline.id)
            await tx.execute("UPDATE apps SET environment = ? WHERE id = ?", environment, app.id)
            await events.record(
                tx,
                "pipeline.changed",
                organization_id=actor.organization_id,
                actor=actor.name,
                app=app.name,
                pipeline=name,
                environment=environment,
            )
        return await self.get(actor, name)

    async def remove(self, actor: Actor, name: str, app: App) -> Pipeline:
        """Take an app out; its environment stays. Raises NotFound."""
        pipeline = await self.get(actor, name)
        async with self._database.transaction() as tx:
            if not await tx.execute(
                "DELETE FROM pipeline_apps WHERE app_id = ? AND pipeline_id = ?", app.id, pipeline.id
            ):
                raise NotFound(f"{app.name} is not in the pipeline {name}")
        return await self.get(actor, name)

    async def destroy(self, actor: Actor, name: str) -> None:
        """The apps stay."""
        pipeline = await self.get(actor, name)
        async with self._database.transaction() as tx:
            await tx.execute("DELETE FROM pipelines WHERE id = ?", pipeline.id)

    async def next_of(self, app: App) -> list[App]:
        """Where an app's image moves to. Raises Conflict when it is in no pipeline, or at its end."""
        row = await self._database.fetch_one(
            "SELECT pipelines.* FROM pipelines JOIN pipeline_apps ON pipeline_apps.pipeline_id = pipelines.id"
            " WHERE pipelines.organization_id = ? AND pipeline_apps.app_id = ?",
            app.organization_id,
            app.id,
        )
        if row is None:
            raise Conflict(
                f"{app.name} is in no pipeline",
                hint=f"Name the app to promote to: promote {app.name} <app>, or see: help pipelines:add",
            )
        pipeline = await self._pipeline(app.organization_id, row)
        found = pipeline.after(app)
        if not found:
            raise Conflict(
                f"{app.name} is {app.environment}, and no app comes after it in the pipeline {pipeline.name}",
                hint=f"Look at: pipelines:info {pipeline.name}",
            )
        return found

    async def _pipeline(self, organization_id: str, row: Row) -> Pipeline:
        rows = await self._database.fetch("SELECT app_id FROM pipeline_apps WHERE pipeline_id = ?", row["id"])
        ids = {r["app_id"] for r in rows}
        apps = [app for app in await self._apps.of(organization_id) if app.id in ids]
        return Pipeline(row["id"], row["name"], tuple(sorted(apps, key=lambda a: _ORDER.index(a.environment))))
