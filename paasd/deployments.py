"""Table `deployments`: attempts to make a release the running one."""

from __future__ import annotations

from dataclasses import dataclass

from paasd import events
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import NotFound
from paasd.models import App, Release, Status
from paasd.numbered import Table, abandon_unfinished, by_number, delete_in_pieces, next_number, page


@dataclass(frozen=True)
class Deployment:
    """Phases: releasing → starting → switching → live. `phase` stays where a failed one stopped."""

    id: str
    app_id: str
    number: int
    release_id: str
    status: Status
    phase: str
    reason: str
    created_by: str
    created_at: float
    finished_at: float | None


class Deployments:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, app: App, release: Release, actor: str) -> Deployment:
        async with self._database.transaction() as tx:
            number = await next_number(tx, Table.DEPLOYMENTS, app.id)
            await tx.execute(
                "INSERT INTO deployments (id, organization_id, app_id, number, build_id, release_id, status, phase,"
                " created_by, created_at) VALUES (?, ?, ?, ?, ?, ?, 'running', 'releasing', ?, ?)",
                new_id(),
                app.organization_id,
                app.id,
                number,
                release.build_id,
                release.id,
                actor,
                now(),
            )
        return await self.by_number(app, number)

    async def phase(self, deployment: Deployment, phase: str) -> None:
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE deployments SET phase = ? WHERE id = ?", phase, deployment.id)

    async def fail(self, app: App, deployment: Deployment, status: Status, reason: str) -> None:
        async with self._database.transaction() as tx:
            await finish(tx, app, deployment, status, reason)

    async def of(self, app: App, *, before: int = 0, limit: int = 50) -> list[Deployment]:
        """Newest first, numbers under `before` when given."""
        rows = await page(self._database, Table.DEPLOYMENTS, app, before, limit)
        return [_row(row) for row in rows]

    async def by_number(self, app: App, number: int) -> Deployment:
        row = await by_number(self._database, Table.DEPLOYMENTS, app, number)
        if row is None:
            raise NotFound(f"{app.name} has no deployment {number}", hint=f"List them with: deployments {app.name}")
        return _row(row)

    async def abandon_unfinished(self, reason: str) -> int:
        """At start: whatever was under way when the daemon died has failed; the old release still serves."""
        return await abandon_unfinished(self._database, Table.DEPLOYMENTS, reason)

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


async def finish(tx: Transaction, app: App, deployment: Deployment, status: Status, reason: str = "") -> None:
    """Set the final status, in the transaction of the change it tells of."""
    phase = "live" if status is Status.SUCCEEDED else None
    await tx.execute(
        "UPDATE deployments SET status = ?, reason = ?, finished_at = ?, phase = coalesce(?, phase) WHERE id = ?",
        status,
        reason,
        now(),
        phase,
        deployment.id,
    )
    await events.record(
        tx,
        "deployment.completed",
        organization_id=app.organization_id,
        actor=deployment.created_by,
        app=app.name,
        deployment=deployment.number,
        status=status,
        reason=reason,
    )


def _row(row: Row) -> Deployment:
    values = {name: row[name] for name in Deployment.__dataclass_fields__}
    return Deployment(**{**values, "status": Status(row["status"])})
