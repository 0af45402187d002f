"""What the edge knows of apps, kept equal to the database: a change is in both or in neither."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from paasd.apps import Apps
from paasd.database import Database, Derived
from paasd.edge_values import Route, Site
from paasd.errors import InvalidSite, PaasdError
from paasd.models import Actor, App
from paasd.route.domains import Change, Domains
from paasd.route.edge import Edge
from paasd.route.host_names import is_wildcard
from paasd.route.path_routes import PathRoute
from paasd.route.redirects import StoredRedirect

_log = logging.getLogger(__name__)

_KEPT = 60.0
"""Seconds: where redirects lead depends on which certificates are valid."""

Done = TypeVar("Done")


class AppSites:
    def __init__(self, apps: Apps, domains: Domains, edge: Edge, database: Database) -> None:
        self._apps = apps
        self._domains = domains
        self._edge = edge
        self._changing = asyncio.Lock()
        """So that what the database says of a name is still so when the edge is told."""
        self._wanted: Derived[Sequence[Site]] = Derived(database, _KEPT)
        """Of all apps. They are half a dozen queries an app."""

    async def sync(self) -> dict[str, str]:
        """Make the edge's sites those of the database; returns why any was quarantined, by app. Routes that no app has
        go last, when nothing leads to them any more: an app that was renamed is served by its old one until then."""
        async with self._changing:
            return await self._sync()

    async def _sync(self) -> dict[str, str]:
        sites = await self._wanted.get(self._of_all)
        refused = await self._edge.sync_sites(sites)
        for name in set(await self._edge.routes()) - {site.app for site in sites}:
            await self._edge.remove_route(name)
        return refused

    async def _of_all(self) -> Sequence[Site]:
        return [await self._domains.site(app) for app in await self._apps.all()]

    async def begin(self, app: App) -> None:
        """Serve a new app, which says that there is nothing yet."""
        async with self._changing:
            await self._edge.forget(app.name)
            await self._edge.set_route(Route(app.name))
            await self._edge.set_site(await self._domains.site(app))

    async def set(self, app: App) -> None:
        """Make what the database says of an app's host names, TLS and gateway effective."""
        async with self._changing:
            await self._set(app)

    async def _set(self, app: App) -> None:
        # Its present name: a site of the old one would come back.
        site = await self._domains.site(await self._apps.refresh(app))
        if not (site.needs_block and any(map(is_wildcard, site.domains))):
            await self._edge.set_site(site)
        # Its block would take names of others that lie below: those get their own in the same step.
        elif reason := (await self._sync()).get(site.app):
            raise InvalidSite(f"Nginx refuses the site of {site.app}: {reason}")

    async def change(
        self,
        app: App,
        change: Callable[[], Awaitable[Done]],
        undo: Callable[[Done], Coroutine[Any, Any, object]],
        also: Callable[[], Awaitable[None]] | None = None,
    ) -> Done:
        """Change the database and make that effective; what the edge does not take, for whatever reason, is undone.
        `also` is told where more than the app's site follows from the change."""

        async def tell() -> None:
            await self._set(app)
            if also:
                await also()

        async with self._changing:
            done = await change()
            try:
                await tell()
            except BaseException:
                await asyncio.shield(self._undo(app, undo(done), tell))
                raise
            return done

    async def _undo(self, app: App, undoing: Coroutine[Any, Any, object], tell: Callable[[], Awaitable[None]]) -> None:
        """Raises nothing: that would hide why it is undone. The edge may have taken a part of the change."""

        async def undo() -> None:
            await undoing
            await tell()

        await tidy(f"what was not possible for {app.name}", undo)

    async def rename(self, actor: Actor, app: App, name: str, route: Route) -> App:
        """The app is called `name` from here on and has `route` under it. Its old name serves until the new one does;
        what the edge does not take is undone."""
        async with self._changing:
            renamed = await self._apps.rename(actor, app, name)
            try:
                await self._take_over(renamed, route, app.name)
            except BaseException:
                await asyncio.shield(tidy(f"what {app.name} was called", lambda: self._name_back(actor, app, route)))
                raise
        await tidy(f"sites that lead to {name}", self.sync)
        return renamed

    async def _take_over(self, app: App, route: Route, before: str) -> None:
        await self._edge.set_route(replace(route, app=app.name))
        await self._edge.set_site(await self._domains.site(app), instead_of=before)

    async def _name_back(self, actor: Actor, app: App, route: Route) -> None:
        renamed = await self._apps.refresh(app)
        await self._take_over(await self._apps.rename_back(actor, renamed, app.name), route, renamed.name)
        await self._edge.remove_route(renamed.name)

    async def drop(self, name: str) -> None:
        """Take the site of a name away that no app has; a new one may have it by now."""
        async with self._changing:
            if not await self._apps.is_taken(name):
                await self._edge.remove_site(name)

    async def drop_route(self, name: str) -> None:
        """The same of its route."""
        async with self._changing:
            if not await self._apps.is_taken(name):
                await self._edge.remove_route(name)

    async def add_domains(self, actor: Actor, app: App, names: Sequence[str]) -> Change:
        """All of them, or none when one is refused."""
        return await self._change_domains(actor, app, lambda: self._domains.change(actor, app, add=names))

    async def remove_domains(self, actor: Actor, app: App, names: Sequence[str]) -> Change:
        return await self._change_domains(actor, app, lambda: self._domains.change(actor, app, remove=names))

    async def set_domains(self, actor: Actor, app: App, names: Sequence[str]) -> Change:
        """These instead of those there are."""
        return await self._change_domains(actor, app, lambda: self._domains.replace(actor, app, names))

    async def _change_domains(self, actor: Actor, app: App, change: Callable[[], Awaitable[Change]]) -> Change:
        before: Mapping[str, float] = {}

        async def changed() -> Change:
            nonlocal before
            before = await self._domains.stored(app)
            return await change()

        return await self.change(app, changed, lambda _: self._domains.put_back(actor, app, before))

    async def add_redirect(self, actor: Actor, app: App, source: str, to: str, status: int) -> StoredRedirect:
        redirects = self._domains.redirects

        async def add() -> StoredRedirect:
            return await redirects.add(actor, app, source, to, status, await self._domains.of(app))

        return await self.change(app, add, lambda added: redirects.remove(actor, app, added.host))

    async def remove_redirect(self, actor: Actor, app: App, source: str) -> None:
        redirects = self._domains.redirects
        await self.change(
            app,
            lambda: redirects.remove(actor, app, source),
            lambda removed: redirects.put_back(actor, app, removed),
        )

    async def add_path_route(self, actor: Actor, app: App, prefix: str, other: App, strip: bool) -> PathRoute:
        routes = self._domains.path_routes
        return await self.change(
            app,
            lambda: routes.add(actor, app, prefix, other, strip=strip),
            lambda added: routes.remove(actor, app, added.prefix),
        )

    async def remove_path_route(self, actor: Actor, app: App, prefix: str) -> PathRoute:
        routes = self._domains.path_routes

        async def put_back(removed: PathRoute) -> None:
            other = await self._apps.get(app.organization_id, removed.app_name)
            await routes.put_back(actor, app, removed, other)

        return await self.change(app, lambda: routes.remove(actor, app, prefix), put_back)

    async def change_global_domains(self, change: Awaitable[None]) -> None:
        """What each app is reached by changes with it. An edge that does not take it now gets it by the reconciler."""
        await change
        await tidy("sites under a changed global domain", self.sync)

    async def refresh_members(self) -> None:
        """Who may see apps has changed: the edge is told at once, if it can be, or else by the reconciler."""
        await tidy("members of apps", self.sync)


async def tidy(what: str, step: Callable[[], Awaitable[object]]) -> None:
    """Do a step that the reconciler does later if it fails now."""
    try:
        await step()
    except PaasdError as error:
        _log.warning("%s: left to the reconciler: %s", what, error.detail)
    except Exception:
        _log.exception("%s: left to the reconciler", what)
