"""A change of an app's names is in the database and at the edge, or in neither."""

from __future__ import annotations

import errno

import pytest

from paasd.app_sites import AppSites
from paasd.edge_values import Site
from paasd.errors import EdgeError
from paasd.gateway.policy import Gateway
from paasd.models import App
from paasd.route.domains import Domains
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

    monkeypatch.setattr(bench.edge, "_make_effective", fail)
    changes = {"deny": None, "body-size": "1m"}
    with pytest.raises(EdgeError, match="within 15 s"):
        await sites.change(
            blog,
            lambda: gateway.change(store.admin, blog, changes),
            lambda _: gateway.change(store.admin, blog, {"deny": "127.0.0.1", "body-size": None}),
        )
    monkeypatch.undo()
    assert (await bench.visitor.get("blog.localhost"))[0] == 403


async def _state(domains: Domains, app: App) -> object:
    names = await domains.names(app)
    redirects = [(each.host, each.target, each.status) for each in names.redirects]
    return names.own, redirects, await domains.path_routes.of(app)
