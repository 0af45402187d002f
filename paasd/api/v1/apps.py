"""Apps: create, list, look at, rename, clone, destroy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import app_shape
from paasd.apps import Apps
from paasd.identity.policy import Action
from paasd.lifecycle import Lifecycle
from paasd.models import App
from paasd.previews import Previews
from paasd.route.domains import Domains


class NewApp(Body):
    name: str
    project: str | None = None
    environment: str = "production"


class AppChange(Body):
    name: str | None = None
    deploy_branch: str | None = None


class Lock(Body):
    reason: str


class NewClone(Body):
    name: str


class AppsResource:
    def __init__(self, apps: Apps, lifecycle: Lifecycle, previews: Previews, domains: Domains) -> None:
        self._apps = apps
        self._lifecycle = lifecycle
        self._previews = previews
        self._domains = domains

    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "/apps", Action.APP_READ, self.listing, "List the apps"),
            Operation("POST", "/apps", Action.APP_CREATE, self.create, "Create an app", NewApp),
            Operation("GET", "/apps/{app}", Action.APP_READ, self.info, "One app"),
            Operation(
                "PATCH",
                "/apps/{app}",
                Action.APP_CONFIGURE,
                self.change,
                "Rename; set the deploy branch",
                AppChange,
                streams=True,
            ),
            Operation("PUT", "/apps/{app}/lock", Action.APP_CONFIGURE, self.lock, "Refuse deployments", Lock),
            Operation("DELETE", "/apps/{app}/lock", Action.APP_CONFIGURE, self.unlock, "Take deployments again"),
            Operation("DELETE", "/apps/{app}", Action.APP_DESTROY, self.destroy, "Destroy an app and all it has"),
            Operation(
                "POST", "/apps/{app}/clone", Action.APP_CREATE, self.clone, "Clone an app", NewClone, streams=True
            ),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        return {"items": [await self._shape(app) for app in await self._apps.of(call.actor.organization_id)]}

    async def create(self, call: Call) -> dict[str, Any]:
        body: NewApp = call.body
        app = await self._lifecycle.create(call.actor, body.name, project=body.project, environment=body.environment)
        return await self._shape(app)

    async def info(self, call: Call) -> dict[str, Any]:
        return await self._shape(call.app)

    async def change(self, call: Call) -> dict[str, Any]:
        body: AppChange = call.body
        app = call.app
        if body.name is not None and body.name != app.name:
            app = await self._lifecycle.rename(call.actor, app, body.name, call.progress)
        if body.deploy_branch is not None:
            await self._lifecycle.set_deploy_branch(app, body.deploy_branch)
        return await self._shape(await self._apps.get(app.organization_id, app.name))

    async def lock(self, call: Call) -> dict[str, Any]:
        return await self._shape(await self._apps.lock(call.actor, call.app, call.body.reason))

    async def unlock(self, call: Call) -> dict[str, Any]:
        return await self._shape(await self._apps.lock(call.actor, call.app, None))

    async def destroy(self, call: Call) -> dict[str, Any]:
        await self._previews.destroy_all(call.actor, call.app)
        await self._lifecycle.destroy(call.actor, call.app)
        return {"name": call.app.name}

    async def clone(self, call: Call) -> dict[str, Any]:
        return await self._shape(await self._lifecycle.clone(call.actor, call.app, call.body.name, call.progress))

    async def _shape(self, app: App) -> dict[str, Any]:
        return {
            **app_shape(app),
            "url": await self._domains.url(app),
            "domains": await self._domains.of(app),
        }
