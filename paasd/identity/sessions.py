"""Tokens of SSH sessions, in memory only: how a session's commands and git hooks act as the key's user in the API."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass

from paasd.models import Actor, Secret


@dataclass(frozen=True)
class OpenSession:
    actor: Actor
    gone: asyncio.Event
    """Set when the client at the other end of the session left."""
    key_id: str | None = None
    """Of the SSH key that signed; None for what goes on after a session of its own."""


class Sessions:
    """Issues a token for the life of one SSH session."""

    def __init__(self) -> None:
        self._open: dict[bytes, OpenSession] = {}

    def open(self, actor: Actor, gone: asyncio.Event, key_id: str | None = None) -> Secret:
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = OpenSession(actor, gone, key_id)
        return Secret(token)

    def close(self, token: Secret) -> None:
        self._open.pop(_digest(token.reveal()), None)

    def find(self, token: str) -> OpenSession | None:
        return self._open.get(_digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
