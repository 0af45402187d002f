"""SSH keys of the organization's users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import key_shape
from paasd.identity.policy import Action
from paasd.identity.ssh_keys import SshKeys
from paasd.identity.users import Users

Disconnect = Callable[[str], Awaitable[None]]


class NewKey(Body):
    name: str
    public_key: str


class KeysResource:
    """`disconnect` ends the open sessions of a key that was removed, over SSH and in browsers."""

    def __init__(self, keys: SshKeys, users: Users, disconnect: Disconnect) -> None:
        self._keys = keys
        self._users = users
        self._disconnect = disconnect

    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "/keys", Action.KEY_READ, self.listing, "List SSH keys"),
            Operation("POST", "/keys", Action.KEY_WRITE, self.add, "Add an SSH key", NewKey),
            Operation("DELETE", "/keys/{name}", Action.KEY_WRITE, self.remove, "Remove a key, end its sessions"),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        return {"items": [key_shape(key) for key in await self._keys.of(call.actor.organization_id)]}

    async def add(self, call: Call) -> dict[str, Any]:
        user_id = call.actor.user_id or await self._users.first_user(call.actor.organization_id)
        return key_shape(await self._keys.add(call.actor, user_id, call.body.name, call.body.public_key))

    async def remove(self, call: Call) -> dict[str, Any]:
        key = await self._keys.remove(call.actor, call.request.match_info["name"])
        await self._disconnect(key.id)
        return key_shape(key)
