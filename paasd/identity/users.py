"""Tables `organizations`, `users`, `memberships`."""

from __future__ import annotations

from paasd.database import Database, Transaction, new_id, now
from paasd.models import Actor

DEFAULT_ORGANIZATION = "default"
FIRST_USER = "admin"


class Users:
    """Knows who exists. The first start makes one organization and one administrator."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._local: Actor

    async def bootstrap(self) -> Actor:
        """Make the first organization and user unless they exist; returns the box's local administrator."""
        async with self._database.transaction() as tx:
            row = await tx.fetch_one("SELECT id FROM organizations WHERE name = ?", DEFAULT_ORGANIZATION)
            organization_id = row["id"] if row else await _create(tx)
        self._local = Actor(organization_id, None, "root", "owner")
        return self._local

    @property
    def local_admin(self) -> Actor:
        """Who root and the group paasd act as on the box itself."""
        return self._local

    async def first_user(self, organization_id: str) -> str:
        """Id of the organization's first owner, who gets keys added without a user."""
        row = await self._database.fetch_one(
            "SELECT user_id FROM memberships JOIN users ON users.id = user_id"
            " WHERE organization_id = ? AND role = 'owner' ORDER BY created_at LIMIT 1",
            organization_id,
        )
        assert row is not None, "bootstrap() makes an owner"
        return str(row["user_id"])

    async def actor(self, organization_id: str, user_id: str) -> Actor | None:
        """The user as a member of the organization; None when they are not (any more)."""
        row = await self._database.fetch_one(
            "SELECT name, role FROM memberships JOIN users ON users.id = user_id"
            " WHERE organization_id = ? AND user_id = ?",
            organization_id,
            user_id,
        )
        return Actor(organization_id, user_id, row["name"], row["role"]) if row else None


async def _create(tx: Transaction) -> str:
    organization_id, user_id = new_id(), new_id()
    await tx.execute("INSERT INTO organizations VALUES (?, ?, ?)", organization_id, DEFAULT_ORGANIZATION, now())
    await tx.execute("INSERT INTO users VALUES (?, ?, ?)", user_id, FIRST_USER, now())
    await tx.execute("INSERT INTO memberships VALUES (?, ?, 'owner')", organization_id, user_id)
    return organization_id
