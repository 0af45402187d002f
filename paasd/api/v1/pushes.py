"""Where git's pre-receive hook reports a push."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import pydantic

from paasd.api.operations import Body, Call, Operation
from paasd.identity.policy import Action
from paasd.models import Actor, App, RefUpdate, Release
from paasd.progress import Progress

ObjectId = Annotated[str, pydantic.Field(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})\z")]


class Update(Body):
    old: ObjectId
    new: ObjectId
    ref: str


class NewPush(Body):
    updates: list[Update]
    options: list[str] = pydantic.Field(default_factory=list)
    quarantine: str = ""


class TakePush(Protocol):
    """What decides about a push; see push/receive.py."""

    async def __call__(
        self,
        actor: Actor,
        app: App,
        updates: Sequence[RefUpdate],
        options: Sequence[str],
        quarantine: str,
        progress: Progress,
        gone: asyncio.Event,
    ) -> Release | None: ...


class PushesResource:
    def __init__(self, take_push: TakePush) -> None:
        self._take_push = take_push

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "POST",
                "/apps/{app}/pushes",
                Action.APP_DEPLOY,
                self.push,
                "Deploy what a git push brought (for the pre-receive hook)",
                NewPush,
                streams=True,
            )
        ]

    async def push(self, call: Call) -> dict[str, Any]:
        body: NewPush = call.body
        updates = [RefUpdate(u.old, u.new, u.ref) for u in body.updates]
        release = await self._take_push(
            call.actor, call.app, updates, body.options, body.quarantine, call.progress, call.gone
        )
        return {"release": release.version if release else None}
