"""Pipelines, and the promotion of images along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import release_shape
from paasd.apps import Apps
from paasd.changes import Changes
from paasd.errors import InvalidInput
from paasd.identity.policy import Action
from paasd.pipelines import Pipeline, Pipelines


class NewPipeline(Body):
    name: str


class PipelineApp(Body):
    app: str
    environment: str


class Promotion(Body):
    """Without `to` the apps that come next in the pipeline."""

    to: list[str] = pydantic.Field(default_factory=list)
    ignore_windows: bool = False


class PipelinesResource:
    def __init__(self, apps: Apps, pipelines: Pipelines, changes: Changes) -> None:
        self._apps = apps
        self._pipelines = pipelines
        self._changes = changes

    def operations(self) -> Sequence[Operation]:
        one, read, change = "/pipelines/{pipeline}", Action.APP_READ, Action.APP_CONFIGURE
        return [
            Operation("GET", "/pipelines", read, self.listing, "List the pipelines"),
            Operation("POST", "/pipelines", change, self.create, "Create a pipeline", NewPipeline),
            Operation("GET", one, read, self.info, "One pipeline, its apps in order"),
            Operation("DELETE", one, change, self.destroy, "Destroy a pipeline; its apps stay"),
            Operation("POST", f"{one}/apps", change, self.add, "Put an app into a pipeline", PipelineApp),
            Operation("DELETE", f"{one}/apps/{{app}}", change, self.remove, "Take an app out of a pipeline"),
            Operation(
                "POST",
                "/apps/{app}/promote",
                Action.APP_DEPLOY,
                self.promote,
                "Deploy an app's image to other apps, each with its own config vars",
                Promotion,
                streams=True,
            ),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        return {"items": [_shape(pipeline) for pipeline in await self._pipelines.of(call.actor)]}

    async def create(self, call: Call) -> dict[str, Any]:
        return _shape(await self._pipelines.create(call.actor, call.body.name))

    async def info(self, call: Call) -> dict[str, Any]:
        return _shape(await self._pipelines.get(call.actor, _name(call)))

    async def destroy(self, call: Call) -> dict[str, Any]:
        await self._pipelines.destroy(call.actor, _name(call))
        return {"name": _name(call)}

    async def add(self, call: Call) -> dict[str, Any]:
        app = await self._apps.get(call.actor.organization_id, call.body.app)
        return _shape(await self._pipelines.add(call.actor, _name(call), app, call.body.environment))

    async def remove(self, call: Call) -> dict[str, Any]:
        return _shape(await self._pipelines.remove(call.actor, _name(call), call.app))

    async def promote(self, call: Call) -> dict[str, Any]:
        """One after the other; the first that fails ends it, and those before it stay promoted."""
        body: Promotion = call.body
        named = [await self._apps.get(call.actor.organization_id, name) for name in body.to]
        targets = named or await self._pipelines.next_of(call.app)
        if any(target.id == call.app.id for target in targets):
            raise InvalidInput(f"{call.app.name} cannot be promoted to itself")
        promoted = []
        for target in targets:
            release = await self._changes.promote(
                call.actor, call.app, target, call.progress, ignore_windows=body.ignore_windows
            )
            promoted.append({"app": target.name, **release_shape(release, release.id)})
        return {"items": promoted}


def _name(call: Call) -> str:
    return call.request.match_info["pipeline"]


def _shape(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "apps": [
            {
                "app": app.name,
                "environment": app.environment,
                "release": None if app.release_number is None else f"v{app.release_number}",
            }
            for app in pipeline.apps
        ],
    }
