"""Part `cache`: answers that the edge keeps and gives out again; and the table `cache_purges`, of those it must not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from paasd import events
from paasd.app_settings import Key, one_of
from paasd.database import Database, Transaction, now
from paasd.errors import InvalidInput
from paasd.gateway.parts import Part, Values
from paasd.models import Actor, App
from paasd.names import shown

EVERYTHING = "/*"
_MOST = 50
_LONGEST = 500
_FILES = 30 * 86400
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff?#]")

KEYS: Mapping[str, Key] = {
    "cache": Key(one_of("on", "off"), "Whether answers are kept for as long as the app's Cache-Control allows (off)."),
    "cache.files": Key(
        one_of("on", "off"),
        "Whether files with a hash of their content in the name are kept for 30 days when the app says nothing (on).",
    ),
    "cache.stale": Key(
        one_of("on", "off"), "Whether an answer that is out of date is given rather than the app's error (off)."
    ),
}


def is_on(values: Values) -> bool:
    return values.get("cache") == "on"


def _check(values: Values) -> None:
    retried = {*values.get("retries.on", "").split(",")} & {"502", "503", "504"}
    if values.get("cache.stale") == "on" and retried:
        raise ValueError("cache.stale and the statuses 502 to 504 of retries.on do not go together")


PART = Part("cache", KEYS, lambda values: None, _check)
"""What the edge is told of it is not settings alone: see Purges.policy."""


@dataclass(frozen=True)
class Purge:
    path: str
    """`/news` or, with all that begins so, `/news*`."""
    at: float


class Purges:
    """The last purges of each app. Rows go with the app."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, app: App) -> list[Purge]:
        """Newest first; what an older one left out may have been forgotten with a purge of everything since."""
        rows = await self._database.fetch(
            "SELECT path, created_at FROM cache_purges WHERE app_id = ? AND organization_id = ? ORDER BY id DESC",
            app.id,
            app.organization_id,
        )
        return [Purge(row["path"], row["created_at"]) for row in rows]

    async def add(self, actor: Actor, app: App, paths: Sequence[str]) -> list[str]:
        """Paths in their usual form, all of them when none are given. Raises InvalidInput."""
        wanted = list(dict.fromkeys(map(_path, paths))) or [EVERYTHING]
        if len(wanted) > _MOST:
            raise InvalidInput(f"at most {_MOST} paths at once", hint="A path may end in *, like /news/*")
        async with self._database.transaction() as tx:
            await self._store(tx, app, wanted)
            await events.record(
                tx,
                "cache.purged",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                paths=" ".join(wanted),
            )
        return wanted

    async def _store(self, tx: Transaction, app: App, paths: Sequence[str]) -> None:
        present = {row["path"] for row in await tx.fetch("SELECT path FROM cache_purges WHERE app_id = ?", app.id)}
        # Each request is held against all of them, so that many become one.
        stored = [EVERYTHING] if EVERYTHING in paths or len(present | {*paths}) > _MOST else paths
        for path in present if stored == [EVERYTHING] else present & {*stored}:
            await tx.execute("DELETE FROM cache_purges WHERE app_id = ? AND path = ?", app.id, path)
        for path in stored:
            await tx.execute(
                "INSERT INTO cache_purges (organization_id, app_id, path, created_at) VALUES (?, ?, ?, ?)",
                app.organization_id,
                app.id,
                path,
                now(),
            )

    async def policy(self, app: App, values: Values) -> object | None:
        """The part as the edge is told it: `{"id": …, "version": 3, "purged": [["/news*", 7]], "files": 2592000}`."""
        if not is_on(values):
            return None
        rows = await self._database.fetch(
            "SELECT id, path FROM cache_purges WHERE app_id = ? AND organization_id = ? ORDER BY id",
            app.id,
            app.organization_id,
        )
        version = max((row["id"] for row in rows if row["path"] == EVERYTHING), default=0)
        part: dict[str, object] = {"id": app.id, "version": version}
        if values.get("cache.stale") == "on":
            part["stale"] = True
        if purged := [[row["path"], row["id"]] for row in rows if row["path"] != EVERYTHING]:
            part["purged"] = purged
        if values.get("cache.files") != "off":
            part["files"] = _FILES
        return part


def _path(text: str) -> str:
    """Decoded, as Nginx holds it against requests."""
    path = unquote(text.strip(), errors="surrogateescape")
    segments = path.removesuffix("*").split("/")
    if not path.startswith("/") or _CONTROL.search(path) or len(path) > _LONGEST or {".", ".."} & {*segments}:
        raise InvalidInput(
            f"{shown(text)} is no path of an app",
            hint="A path begins with / and may end in *, like /news or /news/*; all its queries go with it.",
        )
    return path if path == "/" else re.sub("/{2,}", "/", path)
