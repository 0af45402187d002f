"""Builds of an app: list, log, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from paasd.api.operations import Call, Operation
from paasd.api.v1.shapes import build_shape
from paasd.build.builds import Builds
from paasd.deploy import Deployer
from paasd.errors import Cancelled
from paasd.identity.policy import Action


class BuildsResource:
    def __init__(self, builds: Builds, deployer: Deployer) -> None:
        self._builds = builds
        self._deployer = deployer

    def operations(self) -> Sequence[Operation]:
        path, read = "/apps/{app}/builds", Action.APP_READ
        return [
            Operation("GET", path, read, self.listing, "List builds, newest first"),
            Operation("POST", f"{path}/cancel", Action.APP_DEPLOY, self.cancel, "Cancel the build under way"),
            Operation("GET", f"{path}/{{number}}", read, self.info, "One build"),
            Operation("GET", f"{path}/{{number}}/log", read, self.log, "Its log as text; `follow=1` until it ends"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        builds = await self._builds.of(call.app, before=call.number("before"), limit=call.limit())
        before = builds[-1].number if len(builds) == call.limit() else None
        return {"items": [build_shape(build) for build in builds], "before": before}

    async def info(self, call: Call) -> dict[str, Any]:
        return build_shape(await self._builds.by_number(call.app, call.number("number")))

    async def log(self, call: Call) -> web.StreamResponse:
        build = await self._builds.by_number(call.app, call.number("number"))
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(call.request)
        async for piece in self._builds.read_log(call.app, build, follow=bool(call.number("follow"))):
            await response.write(piece)
        return response

    async def cancel(self, call: Call) -> dict[str, Any]:
        number = call.number("number") or None
        reason = Cancelled(f"cancelled by {call.actor.name}")
        return build_shape(self._deployer.cancel(call.app, number, reason))
