"""Table `deployments`: attempts to make a release the running one, and the phases they went through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from paasd import events
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import Cancelled, Conflict, NotFound, NothingToDeploy, PaasdError, Superseded
from paasd.models import Actor, App, Phase, Release, Status
from paasd.numbered import Table, by_number, delete_in_pieces, next_number, page
from paasd.quota_gate import Asking, Gate, unlimited


@dataclass(frozen=True)
class Deployment:
    """`phase` stays where a failed one stopped. Times in seconds since the epoch."""

    id: str
    app_id: str
    number: int
    build_id: str | None
    release_id: str | None
    """None until there is one: a push is a deployment before it is built."""
    strategy: str
    status: Status
    phase: str
    phases: Mapping[str, float]
    """When each phase began, in order."""
    reason: str
    created_by: str
    created_at: float
    finished_at: float | None
    watch_until: float | None
    baseline: Mapping[str, Any] | None
    """The edge's counters of the app when watching began."""


class Deployments:
    def __init__(self, database: Database, gate: Gate = unlimited) -> None:
        self._database = database
        self._gate = gate

    @asynccontextmanager
    async def attempt(self, actor: Actor, app: App, *, build_id: str | None = None) -> AsyncIterator[Deployment]:
        """A deployment under way. What the block raises is why it failed; without that, the block finishes it."""
        deployment = await self.begin(actor, app, build_id=build_id)
        try:
            yield deployment
        except BaseException as error:
            await asyncio.shield(self._fail(app, deployment, error))
            raise

    async def begin(self, actor: Actor, app: App, *, build_id: str | None = None) -> Deployment:
        at = now()
        async with self._database.transaction() as tx:
            number = await next_number(tx, Table.DEPLOYMENTS, app.id)
            await tx.execute(
                "INSERT INTO deployments (id, organization_id, app_id, number, build_id, status, phase, phases,"
                " created_by, created_at) VALUES (?, ?, ?, ?, ?, 'running', ?, ?, ?, ?)",
                new_id(),
                app.organization_id,
                app.id,
                number,
                build_id,
                Phase.REQUESTED,
                json.dumps({Phase.REQUESTED: at}),
                actor.name,
                at,
            )
            await _record(tx, "deployment.requested", app, actor.name, number)
        return await self.by_number(app, number)

    async def release(
        self,
        deployment: Deployment,
        release: Release,
        strategy: str,
        *,
        asking: Asking | None = None,
        stopped: bool = False,
    ) -> None:
        """There is a release to make live now. `asking`: for what it starts; None when it starts nothing, or must not
        be refused. Raises QuotaExceeded."""
        gate = self._gate if asking else unlimited
        asking = asking or Asking("", "", "")
        async with self._database.transaction() as tx, gate(tx, asking):
            await tx.execute(
                "UPDATE deployments SET release_id = ?, build_id = ?, strategy = ?, stopped = ? WHERE id = ?",
                release.id,
                release.build_id,
                strategy,
                int(stopped),
                deployment.id,
            )

    async def enter(self, app: App, deployment: Deployment, phase: Phase) -> None:
        async with self._database.transaction() as tx:
            await _enter(tx, app, deployment, phase)

    async def drained(self) -> None:
        """Deployments whose last old instance has gone are live, and nothing else."""
        if not await self._database.fetch("SELECT 1 FROM deployments WHERE phase = ? LIMIT 1", Phase.DRAINING):
            return
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE deployments SET phase = ?, phases = json_set(phases, '$.live', ?) WHERE phase = ?"
                " AND NOT EXISTS (SELECT 1 FROM instances"
                " WHERE instances.app_id = deployments.app_id AND state = 'retiring')",
                Phase.LIVE,
                now(),
                Phase.DRAINING,
            )

    async def _fail(self, app: App, deployment: Deployment, error: BaseException) -> None:
        status, reason = _outcome(error)
        async with self._database.transaction() as tx:
            await _finish(tx, app, deployment, status, reason)

    async def of(self, app: App, *, before: int = 0, limit: int = 50) -> list[Deployment]:
        """Newest first, numbers under `before` when given."""
        rows = await page(self._database, Table.DEPLOYMENTS, app, before, limit)
        return [_row(row) for row in rows]

    async def by_number(self, app: App, number: int) -> Deployment:
        row = await by_number(self._database, Table.DEPLOYMENTS, app, number)
        if row is None:
            raise NotFound(f"{app.name} has no deployment {number}", hint=f"List them with: deployments {app.name}")
        return _row(row)

    async def watched(self) -> list[Deployment]:
        """Those whose releases are looked after, of all apps."""
        rows = await self._database.fetch("SELECT * FROM deployments WHERE watch_until IS NOT NULL ORDER BY created_at")
        return [_row(row) for row in rows]

    async def watched_before(self, deployment: Deployment) -> Deployment | None:
        """The deployment that made the release before live."""
        row = await self._database.fetch_one(
            "SELECT * FROM deployments WHERE app_id = ? AND number < ? AND status = 'succeeded'"
            " ORDER BY number DESC LIMIT 1",
            deployment.app_id,
            deployment.number,
        )
        return _row(row) if row else None

    async def set_baseline(self, deployment: Deployment, counters: Mapping[str, Any]) -> None:
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE deployments SET baseline = ? WHERE id = ?", json.dumps(counters), deployment.id)

    async def end_watch(self, deployment: Deployment, trouble: str = "") -> None:
        """`trouble` is what was seen although nothing could be done about it."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE deployments SET watch_until = NULL, reason = ? WHERE id = ?",
                trouble or deployment.reason,
                deployment.id,
            )

    async def failed_release(self, app: App, number: int | None) -> str:
        """Id of the release of a deployment that did not succeed, the newest unless `number` is given."""
        found = await (self.by_number(app, number) if number else self._newest(app))
        if found.status in (Status.SUCCEEDED, Status.RUNNING):
            raise Conflict(f"deployment {found.number} of {app.name} has not failed: it {found.status}")
        if found.release_id is None:
            raise Conflict(
                f"deployment {found.number} of {app.name} ended before there was a release",
                hint="Push it again: git push paasd main (amend the commit if Git says that all is up to date)",
            )
        return found.release_id

    async def _newest(self, app: App) -> Deployment:
        rows = await self.of(app, limit=1)
        if not rows:
            raise NotFound(f"{app.name} was never deployed", hint="Push it: git push paasd main")
        return rows[0]

    async def abandon_unfinished(self, reason: str) -> int:
        """At start: whatever was under way when the daemon died has failed; the old release still serves."""
        async with self._database.transaction() as tx:
            abandoned = await tx.fetch(
                "UPDATE deployments SET status = 'failed', reason = ?, finished_at = ? WHERE status = 'running'"
                " RETURNING *, (SELECT name FROM apps WHERE id = app_id) AS app",
                reason,
                now(),
            )
            for row in abandoned:
                await events.record(
                    tx,
                    "deployment.completed",
                    organization_id=row["organization_id"],
                    actor=row["created_by"],
                    app=row["app"],
                    deployment=row["number"],
                    status=Status.FAILED,
                    reason=reason,
                )
        return len(abandoned)

    async def prune(self, keep: int, rollback_targets: int) -> int:
        """Forget all but the newest `keep` of every app. For each release that a rollback can go back to, the one that
        made it live last stays: it is how that is known. Returns how many went."""
        old = await self._database.fetch(
            "SELECT id FROM (SELECT *, row_number() OVER (PARTITION BY app_id ORDER BY number DESC) AS age,"
            " row_number() OVER (PARTITION BY release_id, status ORDER BY number DESC) AS turn FROM deployments)"
            " WHERE age > ? AND status NOT IN ('queued', 'running') AND NOT (status = 'succeeded' AND turn = 1"
            " AND release_id IN (SELECT id FROM releases_once_live WHERE age <= ?))",
            max(1, keep),
            max(1, rollback_targets),
        )
        return await delete_in_pieces(self._database, Table.DEPLOYMENTS, (row["id"] for row in old))

    async def unfinished(self, app: App) -> list[int]:
        """Numbers of the deployments that are called queued or running."""
        rows = await self._database.fetch(
            "SELECT number FROM deployments WHERE app_id = ? AND status IN ('queued', 'running')", app.id
        )
        return [row["number"] for row in rows]


async def succeed(
    tx: Transaction,
    app: App,
    deployment: Deployment,
    *,
    draining: bool,
    watch_until: float | None,
    baseline: Mapping[str, Any] | None,
) -> None:
    """In the transaction that makes the release live. `baseline`: what the edge had counted at the switch."""
    await _enter(tx, app, deployment, Phase.DRAINING if draining else Phase.LIVE)
    await tx.execute(
        "UPDATE deployments SET watch_until = ?, baseline = ? WHERE id = ?",
        watch_until,
        json.dumps(baseline) if baseline is not None else None,
        deployment.id,
    )
    await _finish(tx, app, deployment, Status.SUCCEEDED)


async def condemn(tx: Transaction, app: App, deployment: Deployment, reason: str) -> None:
    """It had succeeded, and its release turned out to be bad: nobody shall go back to that."""
    await tx.execute("UPDATE deployments SET watch_until = NULL WHERE id = ?", deployment.id)
    await _finish(tx, app, deployment, Status.FAILED, reason)


async def _enter(tx: Transaction, app: App, deployment: Deployment, phase: Phase) -> None:
    await tx.execute(
        "UPDATE deployments SET phase = ?, phases = json_set(phases, ?, ?) WHERE id = ?",
        phase,
        f"$.{phase}",
        now(),
        deployment.id,
    )
    await _record(tx, "deployment.phase", app, deployment.created_by, deployment.number, phase=phase)


async def _finish(tx: Transaction, app: App, deployment: Deployment, status: Status, reason: str = "") -> None:
    await tx.execute(
        "UPDATE deployments SET status = ?, reason = ?, finished_at = ? WHERE id = ?",
        status,
        reason,
        now(),
        deployment.id,
    )
    await _record(
        tx, "deployment.completed", app, deployment.created_by, deployment.number, status=status, reason=reason
    )


async def _record(tx: Transaction, type: str, app: App, actor: str, number: int, **data: Any) -> None:
    await events.record(
        tx, type, organization_id=app.organization_id, actor=actor, app=app.name, deployment=number, **data
    )


def _outcome(error: BaseException) -> tuple[Status, str]:
    status = Status.FAILED
    if isinstance(error, Superseded):
        status = Status.SUPERSEDED
    elif isinstance(error, Cancelled | NothingToDeploy | asyncio.CancelledError):
        status = Status.CANCELLED
    return status, error.detail if isinstance(error, PaasdError) else type(error).__name__


def _row(row: Row) -> Deployment:
    values = {name: row[name] for name in Deployment.__dataclass_fields__}
    baseline = json.loads(row["baseline"]) if row["baseline"] else None
    return Deployment(
        **{**values, "status": Status(row["status"]), "phases": json.loads(row["phases"]), "baseline": baseline}
    )
