"""Where an app's images are pushed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.build.registry import Registries, Registry
from paasd.errors import Conflict
from paasd.identity.policy import Action
from paasd.models import Secret
from paasd.release import Releases


class NewRegistry(Body):
    server: str
    user: str = ""
    password: str = ""
    automatic: bool = True


class RegistryPush(Body):
    release: int | None = None


class RegistryResource:
    def __init__(self, registries: Registries, releases: Releases) -> None:
        self._registries = registries
        self._releases = releases

    def operations(self) -> Sequence[Operation]:
        path, change = "/apps/{app}/registry", Action.APP_CONFIGURE
        return [
            Operation("GET", path, Action.APP_READ, self.report, "The app's registry, and what was pushed to it"),
            Operation("PUT", path, change, self.set, "Name the registry", NewRegistry),
            Operation("DELETE", path, change, self.unset, "Push no images any more"),
            Operation(
                "POST",
                f"{path}/push",
                Action.APP_DEPLOY,
                self.push,
                "Push a release's image",
                RegistryPush,
                streams=True,
            ),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        registry = await self._registries.get(call.app)
        return {
            "server": registry.server if registry else None,
            "user": registry.user if registry else None,
            "automatic": registry.automatic if registry else False,
            "images": [
                {"release": f"v{i.release}", "name": i.name, "digest": i.digest, "at": instant(i.published_at)}
                for i in await self._registries.published(call.app)
            ],
        }

    async def set(self, call: Call) -> dict[str, Any]:
        body: NewRegistry = call.body
        registry = Registry(body.server, body.user, Secret(body.password), body.automatic)
        await self._registries.set(call.actor, call.app, registry)
        return await self.report(call)

    async def unset(self, call: Call) -> dict[str, Any]:
        await self._registries.set(call.actor, call.app, None)
        return await self.report(call)

    async def push(self, call: Call) -> dict[str, Any]:
        body: RegistryPush = call.body
        found = self._releases.by_number(call.app, body.release) if body.release else self._releases.current(call.app)
        release = await found
        if release is None:
            raise Conflict(f"{call.app.name} has not been deployed yet", hint="Push it: git push paasd main")
        published = await self._registries.publish(call.app, release, call.progress)
        return {"name": published.name, "digest": published.digest}
