"""A change of an app's names is in the database and at the edge, or in neither."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any, cast

import pytest

from paasd.api.operations import Body, Call
from paasd.api.v1.edge import EdgeResource, EdgeSettingsChange
from paasd.api.v1.snippets import NewSnippet, SnippetsResource
from paasd.app_settings import put
from paasd.app_sites import AppSites
from paasd.config import SshConfig
from paasd.edge_values import Route, Site
from paasd.errors import EdgeError, InvalidSite
from paasd.gateway.policy import Gateway
from paasd.identity.sign_ins import SignIns
from paasd.models import App
from paasd.nginx_snippets import Snippets
from paasd.progress import Progress
from paasd.route.domains import Domains
from paasd.secrets import Vault
from paasd.tls_settings import TlsSettings
from tests.integration.edge.conftest import Bench
from tests.unit.conftest import Store, store

__all__ = ["store"]

FAULTS = [EdgeError("Nginx does not answer"), OSError(errno.ENOSPC, "No space left on device")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_what_the_edge_does_not_take_is_undone(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    domains = Domains(store.database, bench.http)
    sites = AppSites(store.apps, domains, bench.edge, store.database)
    blog, api = (
        await store.apps.create(store.admin, "blog"),
        await store.apps.create(store.admin, "api", project="blog"),
    )
    await sites.begin(blog)
    await sites.add_domains(store.admin, blog, ["b.example.org", "a.example.org"])
    await sites.add_redirect(store.admin, blog, "www.example.org", "b.example.org", 302)
    await sites.add_path_route(store.admin, blog, "/api", api, True)
    before = await _state(domains, blog)
    live = await bench.edge._hosts.live()

    async def fail(site: Site) -> bool:
        raise fault

    monkeypatch.setattr(bench.edge, "set_site", fail)
    for change in (
        lambda: sites.add_domains(store.admin, blog, ["c.example.org"]),
        lambda: sites.remove_domains(store.admin, blog, ["a.example.org"]),
        lambda: sites.set_domains(store.admin, blog, ["b.example.org", "z.example.org"]),
        lambda: sites.add_redirect(store.admin, blog, "old.example.org", "https://example.com", 308),
        lambda: sites.remove_redirect(store.admin, blog, "www.example.org"),
        lambda: sites.add_path_route(store.admin, blog, "/more", api, False),
        lambda: sites.remove_path_route(store.admin, blog, "/api"),
    ):
        with pytest.raises(type(fault)):
            await change()
        assert await _state(domains, blog) == before
    monkeypatch.undo()
    assert await bench.edge._hosts.live() == live
    await sites.remove_redirect(store.admin, blog, "www.example.org")
    assert "www.example.org" not in await bench.edge._hosts.live()


async def test_what_the_edge_took_of_a_change_is_taken_back(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains, gateway = Domains(store.database, bench.http), Gateway(store.database)
    sites = AppSites(store.apps, domains, bench.edge, store.database)
    blog = await store.apps.create(store.admin, "blog")
    await sites.begin(blog)
    await gateway.change(store.admin, blog, {"deny": "127.0.0.1"})
    await sites.set(blog)

    async def fail() -> bool:
        raise EdgeError("Nginx did not take its configuration within 15 s")

    monkeypatch.setattr(bench.edge._loading, "make_effective", fail)
    changes = {"deny": None, "body-size": "1m"}
    with pytest.raises(EdgeError, match="within 15 s"):
        await sites.change(
            blog,
            lambda: gateway.change(store.admin, blog, changes),
            lambda _: gateway.change(store.admin, blog, {"deny": "127.0.0.1", "body-size": None}),
        )
    monkeypatch.undo()
    assert (await bench.visitor.get("blog.localhost"))[0] == 403


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_what_is_put_back_is_as_it_was_stored(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Values that an older version stored, and that nobody could set today."""
    domains, gateway, snippets = Domains(store.database, bench.http), Gateway(store.database), Snippets(store.database)
    sites = AppSites(store.apps, domains, bench.edge, store.database)
    blog = await store.apps.create(store.admin, "blog")
    await store.apps.create(store.admin, "api", project="blog")
    await sites.begin(blog)
    await _store_what_is_refused_today(store, blog)
    before = await _rows(store)
    assert len(before) == 8

    async def fail(sites: object) -> bool:
        raise fault

    monkeypatch.setattr(bench.edge, "set_site", fail)
    monkeypatch.setattr(bench.edge, "sync_sites", fail)
    edge, own_lines = EdgeResource(gateway, cast(Any, None), sites), SnippetsResource(snippets, sites)
    settings = EdgeSettingsChange(settings={"deny": "10.0.0.0/8", "auth.basic": None, "body-size": "1m"})
    for change in (
        lambda: edge.change(_call(store, blog, settings)),
        lambda: own_lines.set(_call(store, blog, NewSnippet(text="# other"))),
        lambda: sites.add_domains(store.admin, blog, ["c.example.org"]),
        lambda: sites.set_domains(store.admin, blog, ["b.example.org"]),
        lambda: sites.remove_redirect(store.admin, blog, "old.example.org"),
        lambda: sites.remove_path_route(store.admin, blog, "/api"),
    ):
        with pytest.raises(type(fault)):
            await change()
        assert await _rows(store) == before


async def test_members_are_signed_out_with_the_change_or_nothing_changes(bench: Bench, store: Store) -> None:
    """A daemon that dies at any moment has both or neither: here the second half fails."""
    sign_ins = SignIns(store.database, Vault(b"k" * 32), bench.http, SshConfig())
    sites = AppSites(store.apps, Domains(store.database, bench.http, sign_ins), bench.edge, store.database)
    edge = EdgeResource(Gateway(store.database), sign_ins, sites)
    blog = await store.apps.create(store.admin, "blog")
    await sites.begin(blog)
    await edge.change(_call(store, blog, EdgeSettingsChange(settings={"auth.members": "on"})))
    before = await _rows(store)
    async with store.database.transaction() as tx:
        await tx.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON app_settings WHEN new.family = 'sign-in'"
            " BEGIN SELECT raise(ABORT, 'no room'); END"
        )
    with pytest.raises(sqlite3.IntegrityError, match="no room"):
        await edge.change(_call(store, blog, EdgeSettingsChange(settings={"auth.members": "off"})))
    assert await _rows(store) == before
    async with store.database.transaction() as tx:
        await tx.execute("DROP TRIGGER full")
    await edge.change(_call(store, blog, EdgeSettingsChange(settings={"auth.members": "off"})))
    kept = {row[2]: row for row in before}
    (off, ended) = await _rows(store)
    assert off[3] == "off" and ended[2] == "round" and ended != kept["round"]


@pytest.mark.parametrize("refuses", ["the site", "certificates"])
async def test_tls_settings_that_the_edge_does_not_take_are_undone(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    domains, settings = Domains(store.database, bench.http), TlsSettings(store.database)
    sites = AppSites(store.apps, domains, bench.edge, store.database)
    blog = await store.apps.create(store.admin, "blog")
    await sites.begin(blog)
    live, told = await bench.edge._hosts.live(), []

    async def set_site(site: Site) -> bool:
        if site.hsts == "max-age=60":
            raise InvalidSite("Nginx refuses the site of blog")
        return False

    async def serve() -> None:
        told.append((await settings.of(blog)).hsts)
        if told[-1] == "max-age=60":
            raise EdgeError("Nginx does not answer")

    if refuses == "the site":
        monkeypatch.setattr(bench.edge, "set_site", set_site)
    with pytest.raises(InvalidSite if refuses == "the site" else EdgeError):
        await sites.change(
            blog,
            lambda: settings.change(store.admin, blog, {"hsts": "60"}),
            lambda _: settings.put_back(store.admin, blog, {"hsts": None}),
            serve,
        )
    assert await settings.stored(blog) == {} and told[-1] == "max-age=2592000"
    assert await bench.edge._hosts.live() == live


async def test_a_block_with_a_wildcard_takes_no_name_of_another_app(bench: Bench, store: Store) -> None:
    """What was set for one app holds for no other, whose name lies below its wildcard."""
    sites = AppSites(store.apps, Domains(store.database, bench.http), bench.edge, store.database)
    wide, inner = [await store.apps.create(store.admin, name) for name in ("wide", "inner")]
    for app, name in ((wide, "*.w.example.org"), (inner, "x.w.example.org")):
        await sites.begin(app)
        await bench.edge.set_route(Route(app.name, (await bench.apps.saying(app.name),), 1))
        await sites.add_domains(store.admin, app, [name])
    edge = EdgeResource(Gateway(store.database), cast(Any, None), sites)
    await edge.change(_call(store, wide, EdgeSettingsChange(settings={"body-size": "1k"})))
    statuses = {}
    for app, host in (("wide", "y.w.example.org"), ("inner", "x.w.example.org")):
        url, headers = bench.visitor.url(), {"Host": host}
        async with bench.visitor.session.post(url, data=b"x" * 10_000, headers=headers) as response:
            statuses[app] = response.status
    assert statuses == {"wide": 413, "inner": 200}


async def _store_what_is_refused_today(store: Store, blog: App) -> None:
    other = await store.apps.create(store.admin, "elsewhere", project="other")
    own = (blog.organization_id, blog.id)
    async with store.database.transaction() as tx:
        for number, name in enumerate(("under_score.example.org", "*.org", "b.example.org")):
            await tx.execute("INSERT INTO domains VALUES (?, ?, ?, ?)", name, *own, number)
        await tx.execute(
            "INSERT INTO redirects VALUES ('old.example.org', ?, ?, 'https://example.com/?q=1', 302, 1)", *own
        )
        await tx.execute(
            "INSERT INTO path_routes (organization_id, app_id, prefix, other_id, strip, created_at)"
            " VALUES (?, ?, '/api', ?, 1, 1)",
            *own,
            other.id,
        )
        await put(tx, blog, "edge", "deny", "everybody")
        await put(tx, blog, "edge", "auth.basic", "alice:$pbkdf2-sha256$1000$salt$hash")
        await put(tx, blog, "nginx", "snippet", "# a bell: \a")


async def _rows(store: Store) -> list[tuple[object, ...]]:
    """Without the times of path routes and settings, which nobody sees."""
    found: list[tuple[object, ...]] = []
    for columns in (
        "name, app_id, created_at FROM domains ORDER BY created_at, rowid",
        "* FROM redirects",
        "app_id, prefix, other_id, strip FROM path_routes",
        "app_id, family, key, value FROM app_settings ORDER BY key",
    ):
        found += [tuple(row) for row in await store.database.fetch(f"SELECT {columns}")]
    return found


def _call(store: Store, app: App, body: Body) -> Call:
    return Call(cast(Any, None), store.admin, Progress(), app, body)


async def _state(domains: Domains, app: App) -> object:
    names = await domains.names(app)
    redirects = [(each.host, each.target, each.status) for each in names.redirects]
    return names.own, redirects, await domains.path_routes.of(app)
