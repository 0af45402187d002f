"""Table `ssh_keys`: public keys and whose they are."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from paasd import events
from paasd.database import Database, Row, new_id, now
from paasd.errors import AlreadyExists, InvalidInput, NotFound
from paasd.models import Actor
from paasd.names import shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MAX_TEXT = 16 * 1024


@dataclass(frozen=True)
class SshKey:
    id: str
    organization_id: str
    user_id: str
    name: str
    key_type: str
    fingerprint: str
    """`SHA256:…`, as `ssh-keygen -l` prints it."""
    created_at: float


class SshKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, actor: Actor, user_id: str, name: str, text: str) -> SshKey:
        """Add one public key in OpenSSH's one-line form. Raises InvalidInput, or AlreadyExists naming the holder."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"invalid key name {shown(name)}", hint="Use letters, digits and . _ @ - (at most 64).")
        key_type, blob = parse_public_key(text)
        key = SshKey(new_id(), actor.organization_id, user_id, name, key_type, fingerprint(blob), now())
        async with self._database.transaction() as tx:
            taken = await tx.fetch_one(
                "SELECT name FROM ssh_keys WHERE key_blob = ? OR (organization_id = ? AND name = ?)",
                blob,
                actor.organization_id,
                name,
            )
            if taken:
                raise AlreadyExists(
                    f"this key, or another key of that name, exists already (as {taken['name']})",
                    hint=f"Remove it first: keys:remove {taken['name']}",
                )
            await tx.execute(
                "INSERT INTO ssh_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                key.id,
                key.organization_id,
                key.user_id,
                key.name,
                key.key_type,
                blob,
                key.fingerprint,
                key.created_at,
            )
            await events.record(
                tx,
                "key.added",
                organization_id=key.organization_id,
                actor=actor.name,
                name=name,
                fingerprint=key.fingerprint,
            )
        return key

    async def of(self, organization_id: str) -> list[SshKey]:
        rows = await self._database.fetch(
            "SELECT * FROM ssh_keys WHERE organization_id = ? ORDER BY created_at", organization_id
        )
        return [_key(row) for row in rows]

    async def remove(self, actor: Actor, name: str) -> SshKey:
        """Raises NotFound."""
        async with self._database.transaction() as tx:
            row = await tx.fetch_one(
                "SELECT * FROM ssh_keys WHERE organization_id = ? AND name = ?", actor.organization_id, name
            )
            if row is None:
                raise NotFound(f"no SSH key named {shown(name)}", hint="List the keys with: keys:list")
            await tx.execute("DELETE FROM ssh_keys WHERE id = ?", row["id"])
            await events.record(
                tx,
                "key.removed",
                organization_id=actor.organization_id,
                actor=actor.name,
                name=name,
                fingerprint=row["fingerprint"],
            )
        return _key(row)

    async def find(self, blob: bytes) -> SshKey | None:
        """The key with this public blob (RFC 4253 section 6.6), whoever owns it."""
        row = await self._database.fetch_one("SELECT * FROM ssh_keys WHERE key_blob = ?", blob)
        return _key(row) if row else None


def _key(row: Row) -> SshKey:
    fields = ("id", "organization_id", "user_id", "name", "key_type", "fingerprint", "created_at")
    return SshKey(**{field: row[field] for field in fields})


def fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def parse_public_key(text: str) -> tuple[str, bytes]:
    """Type and blob of a public key line. Raises InvalidInput saying what is wrong with it."""
    hint = "Give the one line of a file like ~/.ssh/id_ed25519.pub"
    if "PRIVATE KEY" in text:
        raise InvalidInput("that is a private key, which must never leave its owner's machine", hint=hint)
    parts = text.strip().split(None, 2)
    if len(parts) < 2 or len(text) > _MAX_TEXT or "\n" in text.strip():
        raise InvalidInput("not a public key in OpenSSH's one-line form", hint=hint)
    if parts[0].startswith("sk-"):
        return parts[0], _decode(parts[1], hint)
    try:
        key = load_ssh_public_key(f"{parts[0]} {parts[1]}".encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"not a public key that SSH can use: {error}", hint=hint) from error
    if isinstance(key, DSAPublicKey) or (isinstance(key, RSAPublicKey) and key.key_size < 2048):
        raise InvalidInput(
            "DSA keys and RSA keys under 2048 bits are too weak", hint="Make a new one with: ssh-keygen -t ed25519"
        )
    return parts[0], _decode(parts[1], hint)


def _decode(text: str, hint: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidInput(f"the key is not valid base64: {error}", hint=hint) from error
