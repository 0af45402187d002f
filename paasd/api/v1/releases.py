"""Releases of an app; going back to an old one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pydantic

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import release_shape
from paasd.changes import Changes
from paasd.identity.policy import Action
from paasd.release import Releases, differences


class RollbackTo(Body):
    release: Annotated[int, pydantic.Field(ge=1, le=10**9)] | None = None


class ReleasesResource:
    def __init__(self, releases: Releases, changes: Changes) -> None:
        self._releases = releases
        self._changes = changes

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
            Operation(
                "GET",
                "/apps/{app}/releases/{number}/diff/{other}",
                read,
                self.difference,
                "What another release changed; names of config vars, never their values",
            ),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        releases = await self._releases.of(call.app, before=call.number("before"), limit=call.limit())
        shapes = [release_shape(release, call.app.release_id) for release in releases]
        return {"items": shapes, "before": releases[-1].number if len(releases) == call.limit() else None}

    async def info(self, call: Call) -> dict[str, Any]:
        return release_shape(await self._releases.by_number(call.app, call.number("number")), call.app.release_id)

    async def rollback(self, call: Call) -> dict[str, Any]:
        release = await self._changes.rollback(call.actor, call.app, call.body.release, call.progress)
        return release_shape(release, release.id)

    async def difference(self, call: Call) -> dict[str, Any]:
        old = await self._releases.by_number(call.app, call.number("number"))
        new = await self._releases.by_number(call.app, call.number("other"))
        return {"from": old.version, "to": new.version, "changes": differences(old, new)}
