"""Jobs, for administrators: list, look, try again, discard."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

from paasd.api.operations import Call, Operation
from paasd.api.v1.shapes import job_shape
from paasd.errors import InvalidInput
from paasd.identity.policy import Action, allows
from paasd.jobs.job import JobStatus, Queue
from paasd.jobs.table import Jobs, Viewer

_E = TypeVar("_E", bound=StrEnum)


class JobsResource:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def operations(self) -> Sequence[Operation]:
        read, change = Action.JOB_READ, Action.JOB_CHANGE
        return [
            Operation("GET", "/jobs", read, self.listing, "List jobs, newest first; `queue=`, `status=`"),
            Operation("GET", "/jobs/{id}", read, self.info, "One job"),
            Operation("POST", "/jobs/{id}/retry", change, self.retry, "Run a dead job, or one that waits, now"),
            Operation("DELETE", "/jobs/{id}", change, self.discard, "Forget a job that does not run"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        found = await self._jobs.list(
            _viewer(call),
            queue=_choice(call, "queue", Queue),
            status=_choice(call, "status", JobStatus),
            before=call.number("before"),
            limit=call.limit(),
        )
        before = found[-1].id if len(found) == call.limit() else None
        return {"items": [job_shape(job) for job in found], "before": before}

    async def info(self, call: Call) -> dict[str, Any]:
        return job_shape(await self._jobs.get(_viewer(call), call.number("id")))

    async def retry(self, call: Call) -> dict[str, Any]:
        return job_shape(await self._jobs.retry(call.actor, _viewer(call), call.number("id")))

    async def discard(self, call: Call) -> dict[str, Any]:
        await self._jobs.discard(call.actor, _viewer(call), call.number("id"))
        return {}


def _viewer(call: Call) -> Viewer:
    return Viewer(call.actor.organization_id, allows(call.actor, Action.BOX_READ))


def _choice(call: Call, name: str, among: type[_E]) -> _E | None:
    """A word of the query. Raises InvalidInput."""
    word = call.request.query.get(name)
    try:
        return among(word) if word else None
    except ValueError:
        raise InvalidInput(f"{name} must be one of {', '.join(among)}") from None
