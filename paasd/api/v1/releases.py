"""Releases and deployments of an app; going back to an old release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pydantic

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import deployment_shape, release_shape
from paasd.deploy import Deployer
from paasd.deployments import Deployment, Deployments
from paasd.identity.policy import Action
from paasd.release import Releases


class RollbackTo(Body):
    release: Annotated[int, pydantic.Field(ge=1, le=10**9)] | None = None


class ReleasesResource:
    def __init__(self, releases: Releases, deployments: Deployments, deployer: Deployer) -> None:
        self._releases = releases
        self._deployments = deployments
        self._deployer = deployer

    def operations(self) -> Sequence[Operation]:
        read = Action.APP_READ
        return [
            Operation("GET", "/apps/{app}/releases", read, self.listing, "List releases, newest first"),
            Operation("GET", "/apps/{app}/releases/{number}", read, self.info, "One release"),
            Operation(
                "POST",
                "/apps/{app}/rollback",
                Action.APP_DEPLOY,
                self.rollback,
                "Make an old release live again, as a new one",
                RollbackTo,
                streams=True,
            ),
            Operation("GET", "/apps/{app}/deployments", read, self.deployments, "List deployments, newest first"),
            Operation("GET", "/apps/{app}/deployments/{number}", read, self.deployment, "One deployment"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        releases = await self._releases.of(call.app, before=call.number("before"), limit=call.limit())
        shapes = [release_shape(release, call.app.release_id) for release in releases]
        return {"items": shapes, "before": releases[-1].number if len(releases) == call.limit() else None}

    async def info(self, call: Call) -> dict[str, Any]:
        return release_shape(await self._releases.by_number(call.app, call.number("number")), call.app.release_id)

    async def rollback(self, call: Call) -> dict[str, Any]:
        release = await self._deployer.rollback(call.actor, call.app, call.body.release, call.progress)
        return release_shape(release, release.id)

    async def deployments(self, call: Call) -> dict[str, Any]:
        rows = await self._deployments.of(call.app, before=call.number("before"), limit=call.limit())
        shapes = [await self._shape(call, row) for row in rows]
        return {"items": shapes, "before": rows[-1].number if len(rows) == call.limit() else None}

    async def deployment(self, call: Call) -> dict[str, Any]:
        return await self._shape(call, await self._deployments.by_number(call.app, call.number("number")))

    async def _shape(self, call: Call, row: Deployment) -> dict[str, Any]:
        return deployment_shape(row, (await self._releases.get(call.app, row.release_id)).version)
