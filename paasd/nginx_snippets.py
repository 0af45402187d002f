"""Lines of an administrator's own in an app's server block: the family `nginx` of the app's settings."""

from __future__ import annotations

import re

from paasd.app_settings import AppSettings, Family, Key
from paasd.database import Database
from paasd.errors import InvalidInput
from paasd.models import Actor, App

COMMAND = "nginx:set-snippet"
_KEY = "snippet"
_MOST = 16 * 1024
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def _text(value: str) -> str:
    if len(value) > _MOST or _UNPRINTABLE.search(value):
        raise ValueError(f"text of up to {_MOST // 1024} KiB without control characters")
    return value.strip("\n")


class Snippets:
    """Not copied to clones and previews: who may make those need not be an administrator."""

    def __init__(self, database: Database) -> None:
        keys = {_KEY: Key(_text, "Directives in both of the app's server blocks, that of HTTP and that of HTTPS.")}
        self._settings = AppSettings(database, Family("nginx", COMMAND, "Nginx setting", keys))

    async def of(self, app: App) -> str:
        """Empty for none."""
        return (await self._settings.get(app)).get(_KEY, "")

    async def set(self, actor: Actor, app: App, text: str) -> None:
        """An empty text takes it away. Raises InvalidInput."""
        text = text.replace("\r\n", "\n")
        if text and not text.strip():
            raise InvalidInput("the snippet has nothing but spaces", hint=f"{COMMAND} {app.name} < snippet.conf")
        await self._settings.change(actor, app, {_KEY: text or None})

    async def put_back(self, actor: Actor, app: App, stored: str) -> None:
        """What was stored before a change that is undone, as it was."""
        await self._settings.put_back(actor, app, {_KEY: stored or None})
