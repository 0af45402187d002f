"""What the SSH fronts may open: identity by key, git on an app's repository, paasd's own commands, ports of apps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paasd import events
from paasd.database import Database
from paasd.errors import PaasdError
from paasd.forward import Forward, Forwards
from paasd.identity.sessions import Sessions
from paasd.identity.ssh_keys import SshKeys
from paasd.identity.users import Users
from paasd.models import Actor, Secret
from paasd.names import shown
from paasd.push.receive import Receive
from paasd.push.session import GitService, Session

_SHOWN = 200

RunCommand = Callable[[Session, Sequence[str], Secret], int]
"""The command-line interface, given by who composes the daemon: session, words, API token → exit status."""


class Doors:
    """Implements `push.session.FrontDoors`."""

    def __init__(
        self,
        database: Database,
        keys: SshKeys,
        users: Users,
        sessions: Sessions,
        receive: Receive,
        run_command: RunCommand,
        forwards: Forwards,
    ) -> None:
        self._database = database
        self._keys = keys
        self._users = users
        self._sessions = sessions
        self._receive = receive
        self._run_command = run_command
        self._forwards = forwards

    async def authenticate(self, key_type: str, key_blob: bytes) -> tuple[Actor, str] | None:
        key = await self._keys.find(key_blob)
        if key is None:
            return None
        actor = await self._users.actor(key.organization_id, key.user_id)
        return (actor, key.id) if actor else None

    async def git(self, session: Session, service: str, app: str) -> GitService:
        return await self._receive.git_service(session, service, app)

    async def forward(self, actor: Actor, host: str, port: int) -> Forward:
        return await self._forwards.open(actor, host, port)

    async def refused(self, session: Session, error: PaasdError) -> None:
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                "ssh.refused",
                organization_id=session.actor.organization_id,
                actor=session.actor.name,
                key=session.key_id,
                command=shown(session.command, _SHOWN),
                reason=error.detail,
            )

    def run_command(self, session: Session, argv: Sequence[str]) -> int:
        token = self._sessions.open(session.actor, session.gone, session.key_id)
        try:
            return self._run_command(session, argv, token)
        finally:
            self._sessions.close(token)
