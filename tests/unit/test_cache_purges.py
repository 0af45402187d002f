"""What the edge's cache is told, and told to forget."""

from __future__ import annotations

from typing import Any

import pytest

from paasd.errors import InvalidInput
from paasd.gateway.cache import Purges
from paasd.gateway.policy import Gateway
from paasd.models import App
from tests.unit.conftest import Store

ON = {"cache": "on"}


@pytest.fixture
def purges(store: Store) -> Purges:
    return Purges(store.database)


@pytest.fixture
async def blog(store: Store) -> App:
    return await store.apps.create(store.admin, "blog")


async def told(purges: Purges, app: App, **more: str) -> dict[str, Any]:
    part = await purges.policy(app, ON | more)
    assert isinstance(part, dict)
    return part


async def test_nothing_is_told_of_apps_without_a_cache(purges: Purges, blog: App) -> None:
    assert await purges.policy(blog, {}) is None
    assert await purges.policy(blog, {"cache": "off", "cache.stale": "on"}) is None


async def test_the_part_of_the_policy(purges: Purges, blog: App) -> None:
    assert await told(purges, blog) == {"id": blog.id, "version": 0, "files": 30 * 86400}
    assert await told(purges, blog, **{"cache.files": "off", "cache.stale": "on"}) == {
        "id": blog.id,
        "version": 0,
        "stale": True,
    }


async def test_each_purge_has_a_higher_number_than_all_before(store: Store, purges: Purges, blog: App) -> None:
    await purges.add(store.admin, blog, ["/a", "/b*"])
    first = dict((await told(purges, blog))["purged"])
    await purges.add(store.admin, blog, ["/a"])
    second = dict((await told(purges, blog))["purged"])
    assert second.keys() == {"/a", "/b*"} and second["/a"] > max(first.values()) and second["/b*"] == first["/b*"]
    assert await purges.add(store.admin, blog, []) == ["/*"]
    part = await told(purges, blog)
    assert part["version"] > max(second.values()) and "purged" not in part
    await purges.add(store.admin, blog, ["/a"])
    again = await told(purges, blog)
    assert again["version"] == part["version"] and again["purged"][0][1] > part["version"]


async def test_many_paths_become_a_purge_of_everything(store: Store, purges: Purges, blog: App) -> None:
    for number in range(50):
        await purges.add(store.admin, blog, [f"/{number}"])
    assert len(await purges.of(blog)) == 50
    await purges.add(store.admin, blog, ["/more"])
    assert [purge.path for purge in await purges.of(blog)] == ["/*"]
    with pytest.raises(InvalidInput, match="at most 50"):
        await purges.add(store.admin, blog, [f"/{number}" for number in range(51)])


async def test_purges_go_with_their_app_and_numbers_never_come_again(store: Store, purges: Purges, blog: App) -> None:
    await purges.add(store.admin, blog, [])
    highest = (await told(purges, blog))["version"]
    await store.apps.destroy(store.admin, blog)
    namesake = await store.apps.create(store.admin, "blog")
    assert (await told(purges, namesake))["version"] == 0 and namesake.id != blog.id
    await purges.add(store.admin, namesake, [])
    assert (await told(purges, namesake))["version"] > highest


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("/", "/"),
        ("/*", "/*"),
        ("//a//b", "/a/b"),
        ("/f%C3%BCr", "/für"),
        (" /a ", "/a"),
        ("/a*b", "/a*b"),
        ("/%22", '/"'),
    ],
)
async def test_paths_as_nginx_has_them(store: Store, purges: Purges, blog: App, typed: str, kept: str) -> None:
    assert await purges.add(store.admin, blog, [typed]) == [kept]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "*",
        "https://blog.test/a",
        "/a?b",
        "/a#b",
        "/a\nb",
        "/%0a",
        "/a/../b",
        "/%2e%2e/",
        "/%ff",
        "/" + "a" * 500,
        "/\x7f",
    ],
)
async def test_what_is_no_path(store: Store, purges: Purges, blog: App, path: str) -> None:
    with pytest.raises(InvalidInput, match="no path of an app"):
        await purges.add(store.admin, blog, [path])
    assert await purges.of(blog) == []


async def test_what_does_not_go_together(store: Store, blog: App) -> None:
    gateway = Gateway(store.database)
    await gateway.change(store.admin, blog, {"cache": "on", "cache.stale": "on"})
    with pytest.raises(InvalidInput, match="do not go together"):
        await gateway.change(store.admin, blog, {"retries.on": "connect 503"})
    await gateway.change(store.admin, blog, {"retries.on": "connect timeout"})
    with pytest.raises(InvalidInput, match="one of on, off"):
        await gateway.change(store.admin, blog, {"cache": "yes"})
