"""Table `projects`: apps that share a private network."""

from __future__ import annotations

from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import NotFound
from paasd.models import Project
from paasd.names import app_name, shown


async def ensure(tx: Transaction, organization_id: str, name: str) -> Project:
    """The project of that name, made when it is missing. Raises InvalidInput."""
    app_name(name)
    row = await tx.fetch_one("SELECT * FROM projects WHERE organization_id = ? AND name = ?", organization_id, name)
    if row:
        return _project(row)
    project = Project(new_id(), organization_id, name, None)
    await tx.execute(
        "INSERT INTO projects (id, organization_id, name, created_at) VALUES (?, ?, ?, ?)",
        project.id,
        organization_id,
        name,
        now(),
    )
    return project


async def remove_if_empty(tx: Transaction, project_id: str) -> bool:
    """Delete a project that has neither apps nor volumes (any more); True if it did."""
    changed = await tx.execute(
        "DELETE FROM projects WHERE id = ? AND NOT EXISTS (SELECT 1 FROM apps WHERE project_id = projects.id)"
        " AND NOT EXISTS (SELECT 1 FROM volumes WHERE project_id = projects.id)",
        project_id,
    )
    return changed > 0


class Projects:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, organization_id: str, name: str) -> Project:
        """The project of that name, made when it is missing. Raises InvalidInput."""
        async with self._database.transaction() as tx:
            return await ensure(tx, organization_id, name)

    async def get(self, organization_id: str, project_id: str) -> Project:
        row = await self._database.fetch_one(
            "SELECT * FROM projects WHERE organization_id = ? AND id = ?", organization_id, project_id
        )
        if row is None:
            raise NotFound(f"no project {shown(project_id)}")
        return _project(row)

    async def all(self) -> list[Project]:
        """Every project on the box, for reconciling."""
        return [_project(row) for row in await self._database.fetch("SELECT * FROM projects")]

    async def set_subnet(self, project_id: str, subnet: str) -> None:
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE projects SET subnet = ? WHERE id = ?", subnet, project_id)


def _project(row: Row) -> Project:
    return Project(row["id"], row["organization_id"], row["name"], row["subnet"])
