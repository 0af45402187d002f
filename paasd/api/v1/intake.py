"""Code that comes another way than `git push`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from paasd.api.operations import Body, Call, Operation
from paasd.apps import Apps
from paasd.identity.policy import Action
from paasd.models import Actor, App
from paasd.progress import Progress

_CHUNK = 256 * 1024


class FromImage(Body):
    image: str


class Sync(Body):
    url: str
    branch: str = ""


class TakeCode(Protocol):
    """What makes a push of it; see push/intake.py."""

    async def image(self, actor: Actor, app: App, name: str, progress: Progress, gone: asyncio.Event) -> None: ...

    async def archive(
        self, actor: Actor, app: App, data: AsyncIterator[bytes], progress: Progress, gone: asyncio.Event
    ) -> None: ...

    async def sync(
        self, actor: Actor, app: App, url: str, branch: str, progress: Progress, gone: asyncio.Event
    ) -> None: ...


class IntakeResource:
    def __init__(self, apps: Apps, intake: TakeCode) -> None:
        self._apps = apps
        self._intake = intake

    def operations(self) -> Sequence[Operation]:
        path, deploy = "/apps/{app}", Action.APP_DEPLOY
        return [
            Operation(
                "POST", f"{path}/from-image", deploy, self.image, "Deploy a ready image", FromImage, streams=True
            ),
            Operation(
                "POST", f"{path}/from-archive", deploy, self.archive, "Deploy the tar or zip in the body", streams=True
            ),
            Operation(
                "POST", f"{path}/sync", deploy, self.sync, "Fetch from a Git server and deploy", Sync, streams=True
            ),
        ]

    async def image(self, call: Call) -> dict[str, Any]:
        await self._intake.image(call.actor, call.app, call.body.image, call.progress, call.gone)
        return await self._release(call)

    async def archive(self, call: Call) -> dict[str, Any]:
        data = call.request.content.iter_chunked(_CHUNK)
        await self._intake.archive(call.actor, call.app, data, call.progress, call.gone)
        return await self._release(call)

    async def sync(self, call: Call) -> dict[str, Any]:
        body: Sync = call.body
        await self._intake.sync(call.actor, call.app, body.url, body.branch, call.progress, call.gone)
        return await self._release(call)

    async def _release(self, call: Call) -> dict[str, Any]:
        app = await self._apps.get(call.app.organization_id, call.app.name)
        return {"release": f"v{app.release_number}" if app.release_number else None}
