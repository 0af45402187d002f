"""Quotas of the organization and its projects, and what is used of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.disk_use import DiskUse
from paasd.identity.policy import Action
from paasd.names import chosen_name
from paasd.quotas import Quotas


class QuotaChange(Body):
    """Of one project, or of the organization."""

    project: str | None = None
    settings: dict[str, str | None]


class QuotasResource:
    def __init__(self, quotas: Quotas, disk_use: DiskUse) -> None:
        self._quotas = quotas
        self._disk_use = disk_use

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "GET",
                "/quotas",
                Action.APP_READ,
                self.report,
                "What the organization and its projects use, and their quotas; `project=` for one, empty for the whole",
            ),
            Operation("PATCH", "/quotas", Action.QUOTA_CHANGE, self.change, "Set and unset (null) quotas", QuotaChange),
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        project = call.request.query.get("project")
        if project:
            chosen_name(project)
        return {"items": await self._quotas.report(call.actor.organization_id, project)}

    async def change(self, call: Call) -> dict[str, Any]:
        body: QuotaChange = call.body
        await self._quotas.change(call.actor, body.project or "", body.settings)
        if body.settings.get("disk"):
            await self._disk_use.soon()
        return {"items": await self._quotas.report(call.actor.organization_id, body.project or "")}
