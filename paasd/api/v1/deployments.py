"""Deployments of an app: what they did, ending them, starting them again, and how they are to be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant, release_shape
from paasd.canary import Canary, Verdict
from paasd.changes import Changes
from paasd.deploy import Deployer
from paasd.deploy_settings import KEYS, DeploymentSettings
from paasd.deployments import Deployment, Deployments
from paasd.errors import Cancelled, InvalidInput, NotFound
from paasd.identity.policy import Action
from paasd.models import Phase, Status
from paasd.release import Releases

_Number = Annotated[int, pydantic.Field(ge=1, le=10**9)]


class DeploymentRequest(Body):
    """Either an old build, or a deployment that did not succeed (0: the newest)."""

    build: _Number | None = None
    retry: Annotated[int, pydantic.Field(ge=0, le=10**9)] | None = None
    ignore_windows: bool = False


class CanaryVerdict(Body):
    verdict: Literal["promote", "abort"]


class DeploymentSettingsChange(Body):
    settings: dict[str, str | None]


class DeploymentsResource:
    def __init__(
        self,
        releases: Releases,
        deployments: Deployments,
        settings: DeploymentSettings,
        deployer: Deployer,
        changes: Changes,
        canary: Canary,
    ) -> None:
        self._releases = releases
        self._deployments = deployments
        self._settings = settings
        self._deployer = deployer
        self._changes = changes
        self._canary = canary

    def operations(self) -> Sequence[Operation]:
        path, read, deploy = "/apps/{app}/deployments", Action.APP_READ, Action.APP_DEPLOY
        settings = "/apps/{app}/deploy-settings"
        return [
            Operation("GET", path, read, self.listing, "List deployments, newest first"),
            Operation("GET", f"{path}/{{number}}", read, self.info, "One deployment, with the times of its phases"),
            Operation(
                "POST",
                path,
                deploy,
                self.start,
                "Deploy an old build, or a failed deployment, again",
                DeploymentRequest,
                streams=True,
            ),
            Operation("DELETE", path, deploy, self.cancel, "End what is being deployed, unless it is live already"),
            Operation(
                "POST",
                "/apps/{app}/canary",
                deploy,
                self.decide,
                "Promote or abort the canary under way",
                CanaryVerdict,
            ),
            Operation("GET", settings, read, self.settings, "How the app is deployed, and what says so"),
            Operation(
                "PATCH",
                settings,
                Action.APP_CONFIGURE,
                self.change,
                "Set and unset (null) how the app is deployed",
                DeploymentSettingsChange,
            ),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        rows = await self._deployments.of(call.app, before=call.number("before"), limit=call.limit())
        shapes = [await self._shape(call, row) for row in rows]
        return {"items": shapes, "before": rows[-1].number if len(rows) == call.limit() else None}

    async def info(self, call: Call) -> dict[str, Any]:
        """Number 0 is the newest."""
        number = call.number("number")
        if number:
            return await self._shape(call, await self._deployments.by_number(call.app, number))
        rows = await self._deployments.of(call.app, limit=1)
        if not rows:
            raise NotFound(f"{call.app.name} was never deployed", hint="Push it: git push paasd main")
        return await self._shape(call, rows[0])

    async def start(self, call: Call) -> dict[str, Any]:
        body: DeploymentRequest = call.body
        if (body.build is None) == (body.retry is None):
            raise InvalidInput("say either which build to deploy or which deployment to retry")
        again = {"ignore_windows": body.ignore_windows}
        if body.build is not None:
            release = await self._changes.redeploy(call.actor, call.app, body.build, call.progress, **again)
        else:
            release = await self._changes.retry(call.actor, call.app, body.retry or None, call.progress, **again)
        return release_shape(release, release.id)

    async def cancel(self, call: Call) -> dict[str, Any]:
        reason = Cancelled(f"cancelled by {call.actor.name}")
        ended = self._changes.cancel(call.app, reason)
        if self._deployer.is_pushed_to(call.app):
            ended = bool(self._deployer.cancel(call.app, None, reason)) or ended
        if not ended:
            raise NotFound(
                f"nothing of {call.app.name} is being deployed", hint=f"List them with: deployments {call.app.name}"
            )
        return {"cancelled": True}

    async def decide(self, call: Call) -> dict[str, Any]:
        verdict = Verdict(call.body.verdict)
        self._canary.say(call.app, verdict)
        return {"verdict": verdict.value}

    async def settings(self, call: Call) -> dict[str, Any]:
        found = await self._settings.report(call.app)
        return {
            "settings": {key: {**value, "description": KEYS[key].description} for key, value in found.items()},
        }

    async def change(self, call: Call) -> dict[str, Any]:
        await self._settings.change(call.actor, call.app, call.body.settings)
        return await self.settings(call)

    async def _shape(self, call: Call, row: Deployment) -> dict[str, Any]:
        release = await self._releases.get(call.app, row.release_id) if row.release_id else None
        return {
            "number": row.number,
            "release": release.version if release else None,
            "description": release.description if release else None,
            "strategy": row.strategy,
            "status": row.status,
            "phase": row.phase,
            "phases": _phases(row),
            "reason": row.reason,
            "created_by": row.created_by,
            "created_at": instant(row.created_at),
            "finished_at": instant(row.finished_at),
            "watched_until": instant(row.watch_until),
        }


def _phases(row: Deployment) -> list[dict[str, Any]]:
    """In order, with the seconds each took; None for one that goes on."""
    times = list(row.phases.items())
    end = row.finished_at if row.status is not Status.SUCCEEDED else None
    ends = [at for _, at in times[1:]] + [end]
    return [
        {
            "phase": name,
            "at": instant(at),
            "seconds": None if until is None or name == Phase.LIVE else round(until - at, 3),
        }
        for (name, at), until in zip(times, ends, strict=True)
    ]
