"""Table `domains`: host names of apps, also with a wildcard; and all the names that an app is reached by."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from paasd import events
from paasd.config import HttpConfig
from paasd.database import Database, Transaction, now
from paasd.edge_values import Redirect, Site
from paasd.errors import AlreadyExists, Conflict, NotFound
from paasd.gateway import members, traffic_routes
from paasd.gateway.cache import Purges
from paasd.gateway.parts import Values
from paasd.gateway.policy import BODY, Gateway, pages_text, policy_text
from paasd.identity.sign_ins import SignIns
from paasd.models import Actor, App
from paasd.nginx_snippets import Snippets
from paasd.route import path_routes
from paasd.route.global_domains import GlobalDomains
from paasd.route.host_claims import refuse_taken
from paasd.route.host_names import base_of, both, domain_name, is_wildcard
from paasd.route.path_routes import PathRoutes
from paasd.route.pem import covers
from paasd.route.redirects import Redirects, StoredRedirect, is_url, redirect_of, refuse_lost_targets
from paasd.route.sites import tls_addresses
from paasd.tls_settings import TlsSettings

_MOST = 1000


@dataclass(frozen=True)
class Names:
    """All host names that lead to an app."""

    own: tuple[str, ...]
    """In the order they were added."""
    everywhere: tuple[str, ...]
    """Under the global domains."""
    built_in: str
    redirects: tuple[StoredRedirect, ...]

    @property
    def answered(self) -> list[str]:
        """By the app itself, the built-in one last."""
        return [*self.own, *self.everywhere, self.built_in]

    @property
    def secured(self) -> list[str]:
        """All that should have certificates: redirects from HTTPS need them, too."""
        return [*self.answered, *(redirect.host for redirect in self.redirects)]

    @property
    def main(self) -> str:
        """The first that is no wildcard."""
        return next(name for name in self.answered if not is_wildcard(name))


@dataclass(frozen=True)
class Change:
    """Names that an app got and lost."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Domains:
    def __init__(self, database: Database, http: HttpConfig, sign_ins: SignIns | None = None) -> None:
        """Without `sign_ins` apps with `auth.members` are closed to everybody."""
        self._database = database
        self._http = http
        self._sign_ins = sign_ins
        self._tls = TlsSettings(database)
        self._gateway = Gateway(database)
        self._snippets = Snippets(database)
        self._purges = Purges(database)
        self.everywhere = GlobalDomains(database, http)
        self.redirects = Redirects(database, http)
        self.path_routes = PathRoutes(database)

    def default(self, name: str) -> str:
        """Where an app is reached without any domain of its own."""
        return f"{name}.{self._http.domain}"

    def refuse_reserved(self, name: str) -> None:
        """Raises AlreadyExists when an app of this name would have paasd's own host name."""
        if self.default(name).lower() == self._http.panel.lower():
            raise AlreadyExists(f"{self.default(name)} is the host name of paasd itself", hint="Choose another name.")

    @property
    def built_in(self) -> str:
        """The configuration's domain, under which every app has its name."""
        return self._http.domain

    async def names(self, app: App) -> Names:
        rows = await self._database.fetch(
            "SELECT 'own' AS kind, name AS host, '' AS target, 0 AS status, created_at, rowid AS number FROM domains"
            " WHERE organization_id = ?1 AND app_id = ?2"
            " UNION ALL SELECT 'everywhere', name, '', 0, created_at, rowid FROM global_domains"
            " UNION ALL SELECT 'redirect', host, target, status, created_at, rowid FROM redirects"
            " WHERE organization_id = ?1 AND app_id = ?2 ORDER BY created_at, number",
            app.organization_id,
            app.id,
        )
        return Names(
            tuple(row["host"] for row in rows if row["kind"] == "own"),
            tuple(f"{app.name}.{row['host']}" for row in rows if row["kind"] == "everywhere"),
            self.default(app.name),
            tuple(redirect_of(row) for row in rows if row["kind"] == "redirect"),
        )

    async def of(self, app: App) -> list[str]:
        """Host names that an app answers: its own, those under global domains, the built-in one last."""
        return (await self.names(app)).answered

    async def since(self, app: App) -> dict[str, float]:
        """When the app got each of its domains, and under `""` when it was made or last renamed."""
        rows = await self._database.fetch(
            "SELECT name, created_at FROM domains WHERE app_id = ?1 UNION ALL SELECT '', MAX(at) FROM events"
            " WHERE type = 'app.renamed' AND organization_id = ?2 AND app = ?3",
            app.id,
            app.organization_id,
            app.name,
        )
        return {"": app.created_at} | {row["name"]: row["created_at"] for row in rows if row["created_at"]}

    async def main(self, app: App) -> str:
        """The one host name to give to others."""
        return (await self.names(app)).main

    async def url(self, app: App) -> str:
        """Over HTTPS once the host name has a certificate that browsers know, and as long as it is valid."""
        return (await self._addresses(app))(await self.main(app))

    async def url_of(self, app: App, host: str) -> str:
        """The same for any of its host names. Raises NotFound for one that does not lead to it."""
        answered, name = await self.of(app), domain_name(host)
        if is_wildcard(name) or not any(name == each or _is_below(name, each) for each in answered):
            raise NotFound(f"{app.name} is not at {both(name)}", hint=f"See where it is: domains:report {app.name}")
        return (await self._addresses(app))(name)

    async def site(self, app: App) -> Site:
        tls, values, names = await self._tls.of(app), await self._gateway.values(app), await self.names(app)
        routes = await self.path_routes.of(app)
        more = {
            "routes": path_routes.policy(routes),
            "cache": await self._purges.policy(app, values),
            members.NAME: await self._members(app, values, names.main),
            traffic_routes.NAME: traffic_routes.part(traffic_routes.counted(values, [each.prefix for each in routes])),
        }
        return Site(
            app.name,
            tuple(names.answered),
            await self._redirects(app, names),
            hsts=tls.hsts,
            client_ca=tls.client_ca,
            body_size=values.get(BODY, ""),
            policy=policy_text(values, more),
            pages=pages_text(values),
            snippet=await self._snippets.of(app),
        )

    async def counted_routes(self, app: App) -> list[str]:
        """Path prefixes whose requests are counted by themselves."""
        routes = await self.path_routes.of(app)
        return traffic_routes.counted(await self._gateway.values(app), [route.prefix for route in routes])

    async def _members(self, app: App, values: Values, host: str) -> dict[str, object] | None:
        if not members.is_on(values):
            return None
        return await self._sign_ins.policy(app, values, host) if self._sign_ins else {}

    async def _redirects(self, app: App, names: Names) -> tuple[Redirect, ...]:
        if not names.redirects:
            return ()
        address = await self._addresses(app)
        return tuple(Redirect(each.host, each.status, _target(each, names, address)) for each in names.redirects)

    async def change(self, actor: Actor, app: App, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Change:
        """All of it or nothing. Raises InvalidInput, AlreadyExists for what is somebody's on the box, NotFound for what
        is not the app's, Conflict when a redirect leads there."""
        added = _checked(add)
        async with self._database.transaction() as tx:
            own = await _own(tx, app)
            # What was taken by an older grammar must be able to go.
            removed = [name if name in own else domain_name(name) for name in dict.fromkeys(remove)]
            if missing := [name for name in removed if name not in own]:
                raise NotFound(
                    f"{app.name} has no domain {both(missing[0])}", hint=f"List them with: domains:list {app.name}"
                )
            return await self._change(tx, actor, app, added, removed)

    async def replace(self, actor: Actor, app: App, names: Sequence[str]) -> Change:
        """These instead of those the app has, in their order. All of it or nothing."""
        wanted = _checked(names)
        async with self._database.transaction() as tx:
            present = await _own(tx, app)
            # In another order only when they are written anew.
            kept = present if wanted[: len(present)] == present else []
            removed = [name for name in present if name not in kept]
            return await self._change(tx, actor, app, [name for name in wanted if name not in kept], removed)

    async def stored(self, app: App) -> dict[str, float]:
        """The app's own domains in their order, with when it got each."""
        rows = await self._database.fetch(
            "SELECT name, created_at FROM domains WHERE app_id = ? ORDER BY created_at, rowid", app.id
        )
        return {row["name"]: row["created_at"] for row in rows}

    async def put_back(self, actor: Actor, app: App, stored: Mapping[str, float]) -> None:
        """What was stored before a change that is undone, as it was, whatever today's grammar and rules say of it."""
        async with self._database.transaction() as tx:
            before = await _own(tx, app)
            await tx.execute("DELETE FROM domains WHERE app_id = ?", app.id)
            for name, at in stored.items():
                await tx.execute("INSERT INTO domains VALUES (?, ?, ?, ?)", name, app.organization_id, app.id, at)
            await _record(tx, actor, app, Change(_not_in(stored, before), _not_in(before, stored)))

    async def _change(
        self, tx: Transaction, actor: Actor, app: App, added: Sequence[str], removed: Sequence[str]
    ) -> Change:
        before = await _own(tx, app)
        for name in removed:
            await tx.execute("DELETE FROM domains WHERE name = ? AND app_id = ?", name, app.id)
        for name in added:
            await refuse_taken(tx, self._http, app, name)
            await tx.execute("INSERT INTO domains VALUES (?, ?, ?, ?)", name, app.organization_id, app.id, now())
        after = await _own(tx, app)
        if len(after) > _MOST:
            raise Conflict(f"an app may have {_MOST} domains", hint="A wildcard may do: *.blog.example.org")
        await refuse_lost_targets(tx, app, before, after)
        change = Change(_not_in(after, before), _not_in(before, after))
        await _record(tx, actor, app, change)
        return change

    async def _addresses(self, app: App) -> Callable[[str], str]:
        """What gives the URL of each host name of the app."""
        tls = await self._tls.of(app)
        rows = await self._database.fetch(
            "SELECT names FROM certificates WHERE app_id = ? AND (source <> 'local' OR ?) AND ends_at > ?",
            app.id,
            bool(tls.redirect or tls.client_ca),  # there plain HTTP leads nowhere else
            now(),
        )
        certified = [json.loads(row["names"]) for row in rows] if tls_addresses(self._http) else []

        def address(host: str) -> str:
            secure = any(covers(names, host) for names in certified)
            scheme, port, usual = ("https", self._http.https_port, 443) if secure else ("http", self._http.port, 80)
            return f"{scheme}://{host}" + (f":{port}" if port != usual else "")

        return address


def _target(redirect: StoredRedirect, names: Names, address: Callable[[str], str]) -> str:
    """A host name that the app lost by its renaming, or with a global domain, gives way to the one it has."""
    if is_url(redirect.target):
        return redirect.target
    return address(redirect.target if covers(names.answered, redirect.target) else names.main)


def _is_below(name: str, wildcard: str) -> bool:
    return is_wildcard(wildcard) and name.endswith(f".{base_of(wildcard)}")


async def _own(tx: Transaction, app: App) -> list[str]:
    rows = await tx.fetch("SELECT name FROM domains WHERE app_id = ? ORDER BY created_at, rowid", app.id)
    return [row["name"] for row in rows]


async def _record(tx: Transaction, actor: Actor, app: App, change: Change) -> None:
    for event, names in (("domain.removed", change.removed), ("domain.added", change.added)):
        for name in names:
            await events.record(
                tx, event, organization_id=app.organization_id, actor=actor.name, app=app.name, domain=name
            )


def _checked(names: Sequence[str]) -> list[str]:
    if len(names) > _MOST:
        raise Conflict(f"an app may have {_MOST} domains", hint="A wildcard may do: *.blog.example.org")
    return list(dict.fromkeys(map(domain_name, names)))


def _not_in(names: Iterable[str], others: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)
