"""What was set for an app's gateway: the family `edge` of its settings, and the policy made of it for the edge."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping

from paasd.app_settings import Also, AppSettings, Family, Key, matching
from paasd.database import Database
from paasd.errors import InvalidInput
from paasd.gateway import (
    access_log,
    addresses,
    attack,
    auth,
    balancing,
    breaker,
    cache,
    compression,
    cors,
    ejection,
    headers,
    limits,
    maintenance,
    members,
    pages,
    protocol,
    retries,
    rewrite,
    timeouts,
    trace,
    traffic_routes,
)
from paasd.gateway.parts import Part, Values
from paasd.models import Actor, App

COMMAND = "edge:set"
PARTS: tuple[Part, ...] = (
    addresses.PART,
    attack.PART,
    auth.PART,
    limits.PART,
    *balancing.PARTS,
    breaker.PART,
    ejection.PART,
    retries.PART,
    timeouts.PART,
    headers.PART,
    cors.PART,
    rewrite.PART,
    trace.PART,
    maintenance.PART,
    members.PART,
    pages.PART,
    cache.PART,
    compression.PART,
    protocol.PART,
    access_log.PART,
    traffic_routes.PART,
)
BODY = "body-size"
_BODY_SIZE = re.compile(r"[1-9][0-9]{0,5}[kKmMgG]")

KEYS: Mapping[str, Key] = {
    BODY: Key(
        matching(_BODY_SIZE, "a number of bytes such as 500k, 20m or 1g"),
        "Most that a request's body may have, 100m when not set. Changing it reloads Nginx.",
    ),
    **{key: each for part in PARTS for key, each in part.keys.items()},
}


class Gateway:
    def __init__(self, database: Database) -> None:
        self._settings = AppSettings(database, Family("edge", COMMAND, "edge setting", KEYS))

    async def values(self, app: App) -> Values:
        """What was set, by key."""
        return await self._settings.get(app)

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None], also: Also | None = None) -> None:
        """All changes or none, and what is `also` to be done with them; None or an empty value takes a setting away.
        Raises InvalidInput."""
        before = await self.values(app)
        checked = await asyncio.to_thread(self._checked, changes)  # passwords are hashed slowly
        wanted = {key: value for key, value in {**before, **checked}.items() if value}
        try:
            for part in PARTS:
                part.check(wanted)
        except ValueError as error:
            raise InvalidInput(str(error), hint=f"See what is set: edge:report {app.name}") from None
        await self._settings.change(actor, app, checked, also=also)

    async def put_back(self, actor: Actor, app: App, stored: Mapping[str, str | None]) -> None:
        """What was stored before a change that is undone, as it was."""
        await self._settings.put_back(actor, app, stored)

    def _checked(self, changes: Mapping[str, str | None]) -> dict[str, str | None]:
        family = self._settings.family
        return {key: family.checked(key, value) if value else None for key, value in changes.items()}


def policy_text(values: Values, more: Mapping[str, object | None] | None = None) -> str:
    """JSON of all parts, with `more` that are not settings; empty when there are none."""
    parts = {part.name: part.policy(values) for part in PARTS} | dict(more or {})
    found = {name: part for name, part in parts.items() if part is not None}
    return _json(found)


def pages_text(values: Values) -> str:
    """JSON of the pages that an app has in place of the edge's own; empty when there are none."""
    return _json(pages.pages(values))


def _json(found: Mapping[str, object]) -> str:
    return json.dumps(found, separators=(",", ":"), sort_keys=True) if found else ""
