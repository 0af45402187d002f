"""Who gets to an app with `auth.members` in a browser: links to sign in with, and what the edge is told of members.

Owns the family `sign-in` of the settings. Links and sessions are kept nowhere: they are signed with a key of the app's
own (of the master key and the app's id), which the edge knows too. A session is one SSH key's, and ends with it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from paasd import events
from paasd.app_settings import AppSettings, Family, Key, matching
from paasd.config import HttpConfig, SshConfig
from paasd.database import Database, Transaction
from paasd.errors import Conflict, NotAuthenticated
from paasd.gateway import members
from paasd.identity.policy import Action, allows
from paasd.models import Actor, App
from paasd.secrets import Vault

_ROOT = "root"
"""The box's own administrator, who has no SSH key."""
_ROUND = "round"
_FAMILY = Family(
    "sign-in", "apps:sign-out", "sign-in", {_ROUND: Key(matching(re.compile("[0-9a-f]{16}"), "16 digits"), "")}
)


class SignIns:
    def __init__(self, database: Database, vault: Vault, http: HttpConfig, ssh: SshConfig) -> None:
        self._database = database
        self._key = vault.derive("sign-in")
        self._rounds = AppSettings(database, _FAMILY)
        port = f"-p {ssh.port} " if ssh.port != 22 else ""
        self._ssh = f"ssh {port}paasd@{http.panel or http.domain}"

    async def policy(self, app: App, values: Mapping[str, str], host: str) -> dict[str, object] | None:
        """The edge's part, for an app with that main host name; None when it is for everybody."""
        if not members.is_on(values):
            return None
        return {
            "key": _encoded(await self._key_of(app)),
            "seconds": members.seconds(values),
            "members": await self._members(app),
            "host": host,
            "command": f"{self._ssh} apps:sign-in {app.name}",
        }

    async def token(self, actor: Actor, key_id: str | None, app: App, scheme: str, host: str) -> str:
        """Part of a link with which whoever has this SSH key, or root, signs in there once. Raises Conflict for a key
        that is gone."""
        if key_id is None and actor.user_id is not None:
            raise NotAuthenticated("this session has no SSH key", hint="Ask over SSH, or as root on the box.")
        member = _short(key_id) if key_id else _ROOT
        if member not in await self._members(app):
            raise Conflict("this SSH key was removed", hint="List the keys with: keys:list")
        text = f"{member}.{int(time.time())}.{secrets.token_urlsafe(16)}"
        signed = "\n".join(("link", scheme, host, text))
        token = f"{text}.{_encoded(_hmac(await self._key_of(app), signed))}"
        async with self._database.transaction() as tx:
            await events.record(
                tx, "apps.sign-in", organization_id=app.organization_id, actor=actor.name, app=app.name, host=host
            )
        return token

    async def end_all(self, actor: Actor, app: App) -> None:
        """Links and sessions made before hold no more, once the edge was told."""
        async with self._database.transaction() as tx:
            await self.end_all_with(tx, actor, app)

    async def end_all_with(self, tx: Transaction, actor: Actor, app: App) -> None:
        """The same as part of another change."""
        await self._rounds.write(tx, actor, app, {_ROUND: secrets.token_hex(8)})

    async def _key_of(self, app: App) -> bytes:
        return _hmac(self._key, f"{app.id}|{(await self._rounds.get(app)).get(_ROUND, '')}")

    async def _members(self, app: App) -> dict[str, list[str]]:
        """Names of user and SSH key by what is said in links."""
        rows = await self._database.fetch(
            "SELECT ssh_keys.id, ssh_keys.name AS key, users.id AS user_id, users.name, role FROM ssh_keys"
            " JOIN memberships USING (organization_id, user_id) JOIN users ON users.id = user_id"
            " WHERE organization_id = ? ORDER BY ssh_keys.id",
            app.organization_id,
        )
        found = {_ROOT: [_ROOT]}
        for row in rows:
            if allows(Actor(app.organization_id, row["user_id"], row["name"], row["role"]), Action.APP_READ):
                found[_short(row["id"])] = [row["name"], row["key"]]
        return found


def _short(key_id: str) -> str:
    """Enough to tell keys apart that the same box made at random."""
    return key_id[:16]


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
