"""Which names apps may have, what leads where, and what happens to it when apps change. On a real state.db."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from paasd.config import HttpConfig
from paasd.database import new_id
from paasd.edge_values import Redirect
from paasd.errors import AlreadyExists, Conflict, InvalidInput, NotFound, PaasdError
from paasd.events import Events
from paasd.identity.policy import Action, allows
from paasd.models import Actor, App
from paasd.route.domains import Change, Domains
from paasd.route.path_routes import PathRoute, PathRoutes, checked_prefix, policy
from tests.unit.conftest import Store

HTTP = HttpConfig(domain="box.test", port=80, https_port=0, panel="panel.example.org")


@pytest.fixture
def domains(store: Store) -> Domains:
    return Domains(store.database, HTTP)


@pytest.fixture
async def blog(store: Store) -> App:
    return await store.apps.create(store.admin, "blog")


@pytest.fixture
async def shop(store: Store) -> App:
    return await store.apps.create(store.admin, "shop")


@pytest.fixture
async def foreign(store: Store) -> App:
    """An app of another organization."""
    owner = await stranger(store)
    return await store.apps.create(owner, "foreign")


async def stranger(store: Store) -> Actor:
    organization = new_id()
    async with store.database.transaction() as tx:
        await tx.execute("INSERT INTO organizations VALUES (?, 'others', 0)", organization)
    return Actor(organization, None, "stranger", "owner")


async def told(store: Store, *types: str) -> list[tuple[str, str | None, str]]:
    found = await Events(store.database).list(store.admin.organization_id, limit=200)
    return [(event.type, event.app, event.data["domain"]) for event in found if event.type in types]


async def test_a_host_name_belongs_to_one_app(store: Store, domains: Domains, blog: App, shop: App) -> None:
    assert await domains.change(store.admin, blog, add=["WWW.Example.org"]) == Change(("www.example.org",))
    with pytest.raises(AlreadyExists, match="another app"):
        await domains.change(store.admin, shop, add=["www.example.org"])
    with pytest.raises(AlreadyExists, match="this app"):
        await domains.change(store.admin, blog, add=["www.example.org"])
    assert await domains.of(blog) == ["www.example.org", "blog.box.test"]
    assert await domains.change(store.admin, blog, remove=["www.EXAMPLE.org"]) == Change((), ("www.example.org",))
    with pytest.raises(NotFound):
        await domains.change(store.admin, blog, remove=["www.example.org"])
    await domains.change(store.admin, shop, add=["www.example.org"])
    assert await told(store, "domain.added", "domain.removed") == [
        ("domain.added", "blog", "www.example.org"),
        ("domain.removed", "blog", "www.example.org"),
        ("domain.added", "shop", "www.example.org"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "BOX.test",
        "shop.box.test",
        "a.b.box.test",
        "*.box.test",
        "*.a.box.test",
        "panel.example.org",
        "*.example.org",
        "*.panel.example.org",
    ],
)
async def test_names_of_the_box_are_refused(store: Store, domains: Domains, blog: App, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"own domain|paasd itself"):
        await domains.change(store.admin, blog, add=[name])
    if not name.startswith("*"):
        with pytest.raises(InvalidInput, match=r"own domain|paasd itself"):
            await domains.redirects.add(store.admin, blog, name, "https://example.net", 301, ())
    assert await domains.of(blog) == ["blog.box.test"]


async def test_changes_are_made_whole_or_not_at_all(store: Store, domains: Domains, blog: App, shop: App) -> None:
    await domains.change(store.admin, shop, add=["taken.example.org"])
    for add, remove in ([["a.example.org", "taken.example.org"], []], [["a.example.org"], ["gone.example.org"]]):
        with pytest.raises(PaasdError):
            await domains.change(store.admin, blog, add, remove)
    assert await domains.of(blog) == ["blog.box.test"]
    assert [name for _, app, name in await told(store, "domain.added", "domain.removed") if app == "blog"] == []


async def test_setting_replaces_and_orders(store: Store, domains: Domains, blog: App) -> None:
    first = await domains.replace(store.admin, blog, ["b.example.org", "a.example.org", "B.example.org"])
    assert first == Change(("b.example.org", "a.example.org"))
    assert await domains.replace(store.admin, blog, ["b.example.org", "a.example.org"]) == Change()
    assert await domains.url(blog) == "http://b.example.org"
    assert await domains.replace(store.admin, blog, ["a.example.org", "b.example.org"]) == Change()
    assert await domains.url(blog) == "http://a.example.org"
    assert await domains.replace(store.admin, blog, ["b.example.org", "c.example.org"]) == Change(
        ("c.example.org",), ("a.example.org",)
    )
    assert await domains.replace(store.admin, blog, []) == Change((), ("b.example.org", "c.example.org"))
    assert await domains.of(blog) == ["blog.box.test"]


async def test_a_name_of_an_older_grammar_can_go(store: Store, domains: Domains, blog: App) -> None:
    async with store.database.transaction() as tx:
        await tx.execute("INSERT INTO domains VALUES ('xn--n3h.net', ?, ?, 0)", blog.organization_id, blog.id)
    assert await domains.of(blog) == ["xn--n3h.net", "blog.box.test"]
    assert await domains.change(store.admin, blog, remove=["xn--n3h.net"]) == Change((), ("xn--n3h.net",))
    assert await domains.of(blog) == ["blog.box.test"]


async def test_a_wildcard_is_no_address(store: Store, domains: Domains, blog: App) -> None:
    await domains.change(store.admin, blog, ["*.blog.example.net"])
    assert (await domains.main(blog), await domains.url(blog)) == ("blog.box.test", "http://blog.box.test")
    await domains.change(store.admin, blog, add=["www.example.net"])
    assert await domains.main(blog) == "www.example.net"
    assert (await domains.site(blog)).domains == ("*.blog.example.net", "www.example.net", "blog.box.test")


async def test_apps_of_one_organization_may_share_a_wildcards_domain(
    store: Store, domains: Domains, blog: App, shop: App
) -> None:
    await domains.change(store.admin, blog, add=["*.example.net"])
    await domains.change(store.admin, shop, add=["www.example.net"])
    await domains.change(store.admin, shop, add=["*.shop.example.net"])
    await domains.redirects.add(store.admin, shop, "old.example.net", "www.example.net", 301, await domains.of(shop))
    with pytest.raises(AlreadyExists, match="another app"):
        await domains.change(store.admin, shop, add=["*.example.net"])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("*.example.net", "www.example.net"),
        ("*.example.net", "a.b.example.net"),
        ("*.example.net", "example.net"),
        ("*.example.net", "*.example.net"),
        ("*.example.net", "*.b.example.net"),
        ("*.b.example.net", "example.net"),
        ("*.b.example.net", "*.example.net"),
        ("www.example.net", "*.example.net"),
        ("a.b.example.net", "*.example.net"),
        ("example.net", "*.example.net"),
        ("example.net", "*.b.example.net"),
        ("www.example.net", "www.example.net"),
    ],
)
async def test_a_wildcard_keeps_other_organizations_out(
    store: Store, domains: Domains, foreign: App, blog: App, theirs: str, ours: str
) -> None:
    owner = Actor(foreign.organization_id, None, "stranger", "owner")
    await domains.change(owner, foreign, add=[theirs])
    with pytest.raises(AlreadyExists) as caught:
        await domains.change(store.admin, blog, add=[ours])
    assert "foreign" not in caught.value.detail + caught.value.hint
    if not ours.startswith("*"):
        with pytest.raises(AlreadyExists):
            await domains.redirects.add(store.admin, blog, ours, "https://example.com", 301, ())
    assert await domains.of(blog) == ["blog.box.test"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("www.example.net", "example.net"), ("*.example.net", "*.example.com"), ("*.a.example.net", "*.b.example.net")],
)
async def test_what_does_not_meet_is_left_alone(
    store: Store, domains: Domains, foreign: App, blog: App, theirs: str, ours: str
) -> None:
    await domains.change(Actor(foreign.organization_id, None, "stranger", "owner"), foreign, add=[theirs])
    await domains.change(store.admin, blog, add=[ours])


async def test_redirect_sources_keep_wildcards_of_others_out(
    store: Store, domains: Domains, foreign: App, blog: App
) -> None:
    await domains.redirects.add(store.admin, blog, "old.example.net", "https://example.com", 301, ())
    with pytest.raises(AlreadyExists):
        await domains.change(Actor(foreign.organization_id, None, "stranger", "owner"), foreign, add=["*.example.net"])


async def test_global_domains_give_every_app_a_name(store: Store, domains: Domains, blog: App) -> None:
    await domains.everywhere.add(store.admin, ["apps.example.net", "lan"])
    assert await domains.of(blog) == ["blog.apps.example.net", "blog.lan", "blog.box.test"]
    assert await domains.url(blog) == "http://blog.apps.example.net"
    for name in ("x.apps.example.net", "apps.example.net", "*.apps.example.net", "*.example.net"):
        with pytest.raises(InvalidInput, match="own domain"):
            await domains.change(store.admin, blog, add=[name])
    await domains.everywhere.replace(store.admin, ["lan", "bücher.example"])
    assert await domains.everywhere.all() == ["lan", "xn--bcher-kva.example"]
    await domains.everywhere.remove(store.admin, "bücher.example")
    with pytest.raises(NotFound):
        await domains.everywhere.remove(store.admin, "bücher.example")
    assert await told(store, "global-domain.added", "global-domain.removed") == [
        ("global-domain.added", None, "apps.example.net"),
        ("global-domain.added", None, "lan"),
        ("global-domain.removed", None, "apps.example.net"),
        ("global-domain.added", None, "xn--bcher-kva.example"),
        ("global-domain.removed", None, "xn--bcher-kva.example"),
    ]


@pytest.mark.parametrize(
    "name", ["com", "*.example.net", "box.test", "example.org", "panel.example.org", "a b", "1.2.3.4", "", "a.test."]
)
async def test_global_domains_that_are_refused(store: Store, domains: Domains, name: str) -> None:
    with pytest.raises((InvalidInput, AlreadyExists)):
        await domains.everywhere.add(store.admin, ["fine.example.net", name])
    assert await domains.everywhere.all() == []


@pytest.mark.parametrize("name", ["www.example.net", "example.net", "*.example.net", "*.x.example.net"])
async def test_no_global_domain_over_names_of_apps(store: Store, domains: Domains, blog: App, name: str) -> None:
    await domains.change(store.admin, blog, add=[name])
    with pytest.raises(Conflict, match=r"lie in example\.net"):
        await domains.everywhere.add(store.admin, ["example.net"])


def test_global_domains_are_for_administrators() -> None:
    roles = {role: allows(Actor("o", "u", role, role), Action.GLOBAL_DOMAIN) for role in ("developer", "admin")}
    assert roles == {"developer": False, "admin": True}


async def test_redirects_lead_to_names_of_the_app_and_to_urls(store: Store, domains: Domains, blog: App) -> None:
    await domains.change(store.admin, blog, add=["example.net"])
    names = await domains.of(blog)
    await domains.redirects.add(store.admin, blog, "www.example.net", "example.net", 301, names)
    await domains.redirects.add(store.admin, blog, "old.example.net", "HTTPS://Bücher.example:443/base/", 308, names)
    await domains.redirects.add(store.admin, blog, "a.example.net", "http://example.com:8080", 302, names)
    await domains.redirects.add(store.admin, blog, "b.example.net", "blog.box.test", 307, names)
    site = await domains.site(blog)
    assert site.domains == ("example.net", "blog.box.test")
    assert set(site.redirects) == {
        Redirect("www.example.net", 301, "http://example.net"),
        Redirect("old.example.net", 308, "https://xn--bcher-kva.example/base"),
        Redirect("a.example.net", 302, "http://example.com:8080"),
        Redirect("b.example.net", 307, "http://blog.box.test"),
    }
    assert set((await domains.names(blog)).secured) == {*site.domains, *(each.host for each in site.redirects)}
    renamed = await store.apps.rename(store.admin, blog, "news")
    assert Redirect("b.example.net", 307, "http://example.net") in (await domains.site(renamed)).redirects
    with pytest.raises(Conflict, match=r"www\.example\.net is redirected to example\.net"):
        await domains.change(store.admin, renamed, remove=["example.net"])
    with pytest.raises(Conflict, match="is redirected"):
        await domains.replace(store.admin, renamed, [])
    await domains.redirects.remove(store.admin, renamed, "www.example.net")
    await domains.change(store.admin, renamed, remove=["example.net"])
    with pytest.raises(NotFound):
        await domains.redirects.remove(store.admin, renamed, "www.example.net")


async def test_a_redirect_leads_to_https_once_its_target_has_a_certificate(store: Store, blog: App) -> None:
    domains = Domains(store.database, replace(HTTP, https_port=18443, address="127.0.0.1"))
    await domains.change(store.admin, blog, add=["example.net"])
    await domains.redirects.add(store.admin, blog, "www.example.net", "example.net", 301, await domains.of(blog))
    assert (await domains.site(blog)).redirects[0].target == "http://example.net"
    async with store.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO certificates (id, organization_id, app_id, source, names, chain, private_key, starts_at,"
            " ends_at, created_by, created_at) VALUES ('1', ?, ?, 'acme', ?, '', x'00', 0, 9e9, '', 0)",
            blog.organization_id,
            blog.id,
            '["example.net"]',
        )
    assert (await domains.site(blog)).redirects[0].target == "https://example.net:18443"


@pytest.mark.parametrize(
    "to",
    [
        "other.example.net",
        "https://example.com/?x",
        "https://example.com/#x",
        "https://example.com?",
        "https://example.com/a b",
        "https://example.com/a\nb",
        "https://example.com\n",
        "\nhttps://example.com",
        " https://example.com",
        "https://user@example.com",
        "https://user:secret@example.com",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:",
        "https://example.com:8x",
        "https://[::1]/",
        "https://1.2.3.4/",
        "https://localhost",
        "https://*.example.com",
        "https:///x",
        "https://example.com//evil.example",
        "https://example.com/../x",
        "https://example.com/%zz",
        "https://example.com/$request_uri",
        "https://example.com/a;b",
        "https://example.com/{x}",
        'https://example.com/"x"',
        "https://example.com\\@evil.example",
        "https://example.com/ü",
        f"https://example.com/{'a' * 500}",
        "//example.com",
        "ftp://example.com",
        "javascript://example.com/%0aalert(1)",
        "$host",
        "",
    ],
    ids=ascii,
)
async def test_redirects_to_hostile_targets_are_refused(store: Store, domains: Domains, blog: App, to: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await domains.redirects.add(store.admin, blog, "old.example.net", to, 301, await domains.of(blog))
    assert caught.value.detail.isprintable() and caught.value.hint
    assert await domains.redirects.of(blog) == []


@pytest.mark.parametrize("status", [200, 300, 303, 304, 399, 0])
async def test_only_some_statuses_redirect(store: Store, domains: Domains, blog: App, status: int) -> None:
    with pytest.raises(InvalidInput):
        await domains.redirects.add(store.admin, blog, "old.example.net", "https://example.com", status, ())


async def test_redirects_in_a_circle_are_refused(store: Store, domains: Domains, blog: App, shop: App) -> None:
    add = domains.redirects.add
    with pytest.raises(Conflict, match="to itself"):
        await add(store.admin, blog, "a.example.net", "https://A.example.net/x", 301, ())
    await add(store.admin, blog, "a.example.net", "https://b.example.net", 301, ())
    await add(store.admin, shop, "b.example.net", "https://c.example.net", 301, ())
    with pytest.raises(Conflict, match="to itself"):
        await add(store.admin, blog, "c.example.net", "http://a.example.net/x", 301, ())
    await domains.change(store.admin, blog, add=["*.w.example.net"])
    await add(store.admin, blog, "a.w.example.net", "b.w.example.net", 301, await domains.of(blog))
    with pytest.raises(Conflict, match="to itself"):
        await add(store.admin, blog, "b.w.example.net", "a.w.example.net", 301, await domains.of(blog))


async def test_a_name_is_a_domain_or_a_redirect(store: Store, domains: Domains, blog: App, shop: App) -> None:
    await domains.redirects.add(store.admin, blog, "old.example.net", "https://example.com", 301, ())
    await domains.change(store.admin, blog, add=["example.net"])
    for app in (blog, shop):
        with pytest.raises(AlreadyExists):
            await domains.change(store.admin, app, add=["old.example.net"])
        with pytest.raises(AlreadyExists):
            await domains.redirects.add(store.admin, app, "example.net", "https://example.com", 301, ())
    with pytest.raises(sqlite3.IntegrityError, match="domain or a redirect"):
        async with store.database.transaction() as tx:
            await tx.execute("INSERT INTO domains VALUES ('old.example.net', ?, ?, 0)", shop.organization_id, shop.id)


async def test_all_of_it_goes_with_the_app(store: Store, domains: Domains, blog: App, shop: App) -> None:
    await domains.change(store.admin, blog, add=["example.net"])
    await domains.redirects.add(store.admin, blog, "old.example.net", "https://example.com", 301, ())
    await store.apps.destroy(store.admin, blog)
    await domains.change(store.admin, shop, ["example.net", "old.example.net"])


async def test_paths_go_to_apps_of_the_same_project(store: Store, blog: App, shop: App, foreign: App) -> None:
    routes = PathRoutes(store.database)
    api = await store.apps.create(store.admin, "api", project="blog")
    v2 = await store.apps.create(store.admin, "v2", project="blog")
    await routes.add(store.admin, blog, "/api/", api, strip=True)
    await routes.add(store.admin, blog, "/api/v2", v2)
    assert await routes.of(blog) == [PathRoute("/api/v2", "v2", False), PathRoute("/api", "api", True)]
    assert policy(await routes.of(blog)) == [
        {"prefix": "/api/v2", "app": "v2", "strip": False},
        {"prefix": "/api", "app": "api", "strip": True},
    ]
    for other in (shop, blog, foreign):
        with pytest.raises(InvalidInput, match="project blog"):
            await routes.add(store.admin, blog, "/x", other)
    with pytest.raises(AlreadyExists):
        await routes.add(store.admin, blog, "/api", v2)
    await store.apps.rename(store.admin, api, "backend")
    assert (await routes.of(blog))[1] == PathRoute("/api", "backend", True)
    assert await routes.leading_to(api) == {blog.id} and await routes.leading_to(blog) == set()
    await store.apps.destroy(store.admin, await store.apps.refresh(api))
    assert await routes.of(blog) == [PathRoute("/api/v2", "v2", False)]
    with pytest.raises(NotFound):
        await routes.add(store.admin, blog, "/api", api)
    assert await routes.remove(store.admin, blog, "/api/v2/") == PathRoute("/api/v2", "v2", False)
    with pytest.raises(NotFound):
        await routes.remove(store.admin, blog, "/api/v2")
    assert await routes.of(blog) == [] and policy(await routes.of(blog)) is None


@pytest.mark.parametrize(
    "prefix",
    ["", "/", "//", "api", "/a//b", "/a/..", "/./a", "/a b", "/a\n", "/a%20", "/a;b", "/{a}", "/$a", "/ü", "/~^a$",
     '/"', "/a?b", "/a#b", "/a*", "/a\\b", "/" + "a" * 200],
    ids=ascii,
)  # fmt: skip
def test_paths_outside_the_grammar_are_refused(prefix: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_prefix(prefix)
    assert caught.value.detail.isprintable() and caught.value.hint
