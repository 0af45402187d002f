"""Table `redirects`: host names of apps that send every request on, path and query kept."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from paasd import events
from paasd.config import HttpConfig
from paasd.database import Database, Row, Transaction, now
from paasd.errors import Conflict, InvalidInput, NotFound
from paasd.models import Actor, App
from paasd.names import shown
from paasd.route.host_claims import refuse_taken
from paasd.route.host_names import both, host_name
from paasd.route.pem import covers

STATUSES = (301, 302, 307, 308)
_MOST = 1000
_LONGEST_CHAIN = 10
_LONGEST = 500
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[^/?#@:\\\s]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?", re.IGNORECASE
)
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~+@=,:-]|%[0-9A-Fa-f]{2})+)*")
_HINT = "Give a host name of the app, or a URL such as https://example.org/base, without query and fragment."


@dataclass(frozen=True)
class StoredRedirect:
    host: str
    target: str
    """A host name of the app, or a URL's beginning."""
    status: int
    created_at: float


class Redirects:
    def __init__(self, database: Database, http: HttpConfig) -> None:
        self._database = database
        self._http = http

    async def of(self, app: App) -> list[StoredRedirect]:
        """By host name."""
        rows = await self._database.fetch(
            "SELECT * FROM redirects WHERE app_id = ? AND organization_id = ? ORDER BY host",
            app.id,
            app.organization_id,
        )
        return [redirect_of(row) for row in rows]

    async def add(
        self, actor: Actor, app: App, source: str, to: str, status: int, names: Collection[str]
    ) -> StoredRedirect:
        """Send `source` on to `to`; `names` are the host names that the app has. Raises InvalidInput, AlreadyExists,
        Conflict."""
        if status not in STATUSES:
            raise InvalidInput(f"{status} is no status of a redirect here", hint="Use 301, 302, 307 or 308.")
        added = StoredRedirect(host_name(source), _target(to, app, names), status, now())
        async with self._database.transaction() as tx:
            await refuse_taken(tx, self._http, app, added.host)
            await _refuse_loop(tx, added)
            count = await tx.fetch_one("SELECT count(*) AS n FROM redirects WHERE app_id = ?", app.id)
            if count and count["n"] >= _MOST:
                raise Conflict(f"{app.name} has {_MOST} redirects already", hint="Remove some: redirects:remove")
            await _insert(tx, actor, app, added)
        return added

    async def remove(self, actor: Actor, app: App, source: str) -> StoredRedirect:
        """Raises NotFound."""
        host = host_name(source)
        async with self._database.transaction() as tx:
            row = await tx.fetch_one("SELECT * FROM redirects WHERE host = ? AND app_id = ?", host, app.id)
            if row is None:
                raise NotFound(
                    f"{app.name} does not redirect {both(host)}", hint=f"List them with: redirects:list {app.name}"
                )
            await tx.execute("DELETE FROM redirects WHERE host = ?", host)
            await _record(tx, "redirect.removed", actor, app, host)
        return redirect_of(row)

    async def put_back(self, actor: Actor, app: App, redirect: StoredRedirect) -> None:
        """One that was removed a moment ago, as it was, whatever today's grammar and rules say of it."""
        async with self._database.transaction() as tx:
            await _insert(tx, actor, app, redirect)


async def _insert(tx: Transaction, actor: Actor, app: App, added: StoredRedirect) -> None:
    await tx.execute(
        "INSERT INTO redirects VALUES (?, ?, ?, ?, ?, ?)",
        added.host,
        app.organization_id,
        app.id,
        added.target,
        added.status,
        added.created_at,
    )
    await _record(tx, "redirect.added", actor, app, added.host, target=added.target, status=added.status)


def redirect_of(row: Row) -> StoredRedirect:
    return StoredRedirect(row["host"], row["target"], row["status"], row["created_at"])


def is_url(target: str) -> bool:
    return "://" in target


async def refuse_lost_targets(tx: Transaction, app: App, before: Collection[str], after: Collection[str]) -> None:
    """Raises Conflict when a redirect leads to a host name that the app is about to lose."""
    for row in await tx.fetch("SELECT * FROM redirects WHERE app_id = ?", app.id):
        if not is_url(row["target"]) and covers(before, row["target"]) and not covers(after, row["target"]):
            raise Conflict(
                f"{both(row['host'])} is redirected to {both(row['target'])}",
                hint=f"Remove that first: redirects:remove {app.name} {row['host']}",
            )


def _target(to: str, app: App, names: Collection[str]) -> str:
    if is_url(to):
        return _url(to)
    host = to if to in names else host_name(to)
    if not covers(names, host):
        raise InvalidInput(
            f"{both(host)} is no host name of {app.name}",
            hint=f"Add it first (domains:add {app.name} {host}), or give a URL: https://{host}",
        )
    return host


def _url(text: str) -> str:
    """A URL's beginning that a request's path can be put behind, in its usual form."""
    found = _URL.fullmatch(text) if len(text) <= _LONGEST else None
    if not found or not 0 < int(found["port"] or 1) < 65536:
        raise InvalidInput(f"{shown(text)} is nothing to redirect to", hint=_HINT)
    path = (found["path"] or "").rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise InvalidInput(f"{shown(text)} has a path that cannot stand before another one", hint=_HINT)
    scheme, port = found["scheme"].lower(), int(found["port"] or 0)
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host_name(found['host'])}" + (f":{port}" if port not in (0, usual) else "") + path


async def _refuse_loop(tx: Transaction, added: StoredRedirect) -> None:
    """Follow it through the box's own redirects: none may lead back, and few be enough to arrive."""
    target = added.target
    for _ in range(_LONGEST_CHAIN):
        host = urlsplit(target).hostname if is_url(target) else target
        if host == added.host:
            raise Conflict(
                f"{both(added.host)} would be redirected to itself", hint="Look at them with: redirects:list APP"
            )
        row = await tx.fetch_one("SELECT target FROM redirects WHERE host = ?", host)
        if row is None:
            return
        target = row["target"]
    raise Conflict(f"{both(added.host)} would be redirected more than {_LONGEST_CHAIN} times", hint="Name the last.")


async def _record(tx: Transaction, event: str, actor: Actor, app: App, host: str, **more: object) -> None:
    await events.record(
        tx, event, organization_id=app.organization_id, actor=actor.name, app=app.name, domain=host, **more
    )
