"""Sites and the Nginx process: changes, broken files, hostile names, killed processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import psutil
import pytest
from yarl import URL

from paasd.config import HttpConfig
from paasd.edge_values import Endpoint, Redirect, Route, Site
from paasd.errors import EdgeError, InvalidInput, InvalidSite, NotFound
from paasd.route.edge import Edge
from tests.integration.edge.conftest import TEMPLATES, Bench, running_edge, until
from tests.ports import free_port

HUGE = "9" * 19 + "g"
"""Passes the grammar of sizes; Nginx refuses the number."""


@pytest.mark.parametrize("body_size", ["", "20m"], ids=["live", "block"])
async def test_a_site_is_effective_when_the_call_returns(bench: Bench, body_size: str) -> None:
    endpoint = await bench.apps.saying("hello")
    await bench.edge.set_route(Route("blog", (endpoint,), 1))
    for number in range(5):
        host = f"n{number}.test"
        assert await bench.edge.set_site(Site("blog", (host,), body_size=body_size)) is bool(body_size)
        assert await bench.edge.set_site(Site("blog", (host,), body_size=body_size)) is False
        for _ in range(4):
            async with aiohttp.ClientSession() as fresh:
                bench.visitor.session, kept = fresh, bench.visitor.session
                assert await bench.visitor.get(host) == (200, "hello")
                assert (await bench.visitor.get(f"n{number - 1}.test"))[0] == 404
                bench.visitor.session = kept
    await bench.edge.remove_site("blog")
    assert (await bench.visitor.get("n4.test"))[0] == 404
    assert await bench.edge.counters() == {}


async def test_show_config(bench: Bench) -> None:
    await bench.serve("blog")
    assert "# host blog.test app blog\n" in await bench.edge.site_config("blog")
    await bench.serve("blog", body_size="20m")
    assert "server_name blog.test;" in await bench.edge.site_config("blog")
    with pytest.raises(NotFound):
        await bench.edge.site_config("other")
    with pytest.raises(InvalidInput):
        await bench.edge.site_config("../nginx")


async def test_a_site_that_nginx_refuses_leaves_the_old_one_serving(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    before = await bench.edge.site_config("blog")
    with pytest.raises(InvalidSite, match="client_max_body_size"):
        await bench.edge.set_site(Site("blog", (host, "new.test"), body_size=HUGE))
    assert await bench.edge.site_config("blog") == before
    assert HUGE in (bench.directory / "quarantine" / "blog.conf").read_text()
    assert await bench.visitor.get(host) == (200, "hello")
    await bench.serve("other", await bench.apps.saying("other"))
    assert await bench.visitor.get(host) == (200, "hello")
    await bench.edge.set_site(Site("blog", (host, "new.test")))
    assert await bench.visitor.get("new.test") == (200, "hello")
    assert not list((bench.directory / "quarantine").iterdir())


async def test_a_reload_by_somebody_else_is_not_taken_for_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has read the old server block when ours is written, and is done when we wait for ours."""
    host = await bench.serve("blog", await bench.apps.saying("hello"), body_size="1k")
    master = bench.edge._nginx.master()
    assert master is not None
    obstacle, other = bench.directory / "sites" / "zzz.conf", bench.directory / "held"
    idle = in_kernel(master)
    os.mkfifo(obstacle)
    os.link(obstacle, other)
    master.send_signal(signal.SIGHUP)
    await until(lambda: stays_in_another_call(master, idle))  # it waits for who writes there
    obstacle.unlink()
    reload = bench.edge._nginx.reload

    def reload_and_let_go() -> None:
        reload()
        os.close(os.open(other, os.O_WRONLY))

    monkeypatch.setattr(bench.edge._nginx, "reload", reload_and_let_go)
    assert await bench.edge.set_site(Site("blog", (host,), body_size="1m"))
    async with bench.visitor.session.post(bench.visitor.url(), data=b"x" * 10_000, headers={"Host": host}) as answer:
        assert answer.status == 200


def in_kernel(process: psutil.Process) -> str:
    """The system call that it waits in."""
    return Path(f"/proc/{process.pid}/syscall").read_text().split()[0]


async def stays_in_another_call(process: psutil.Process, idle: str) -> bool:
    seen = set()
    for _ in range(20):
        seen.add(in_kernel(process))
        await asyncio.sleep(0.01)
    return len(seen) == 1 and seen != {idle}


@pytest.mark.parametrize("broken", ["}", "server { listen", 'include "/nowhere/x";', ""])
async def test_a_file_broken_by_hand_harms_no_other_app(bench: Bench, broken: str) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"), body_size="20m")
    sites = bench.directory / "sites"
    (sites / "blog.conf").write_text(broken)
    (sites / "stranger.conf").write_text(broken)
    other = await bench.serve("other", await bench.apps.saying("other"), body_size="20m")
    assert await bench.visitor.get(other) == (200, "other")
    if broken:
        assert await bench.visitor.get(host) == (200, "hello")
        assert not (sites / "stranger.conf").exists() and (bench.directory / "quarantine" / "stranger.conf").exists()
    assert await bench.edge.sync_sites([Site("blog", (host,), body_size="20m"), Site("other", (other,))]) == {}
    assert await bench.visitor.get(host) == (200, "hello")


async def test_sync_sites_repairs_everything_and_quarantines_the_broken(bench: Bench) -> None:
    await bench.serve("old")
    sites = bench.directory / "sites"
    (sites / "stranger.conf").write_text("}")
    (sites / ".blog.conf.new").write_text("half a fi")
    endpoint = await bench.apps.saying("hello")
    good = [Site(f"app{number}", (f"app{number}.test",), body_size="20m" * (number % 2)) for number in range(5)]
    bad = [
        Site("evil", ("x.test; } server {",)),
        Site("huge", ("huge.test",), body_size=HUGE),
        Site("thief", ("app1.test",)),
    ]
    refused = await bench.edge.sync_sites([*good, *bad])
    assert refused.keys() == {"evil", "huge", "thief"}
    assert "already belongs to the app app1" in refused["thief"]
    assert {path.name for path in sites.iterdir()} == {"app1.conf", "app3.conf"}
    for site in good:
        await bench.edge.set_route(Route(site.app, (endpoint,), 1))
    for site in good:
        assert await bench.visitor.get(site.domains[0]) == (200, "hello")
    master = bench.edge._nginx.master()
    assert master is not None
    pids = {worker.pid for worker in master.children()}
    assert (await bench.edge.sync_sites([*good, *bad])).keys() == {"evil", "huge", "thief"}
    assert {worker.pid for worker in master.children()} == pids, "nothing changed, so nothing is reloaded"


HOSTILE = [
    "a.test; location /h/ { alias /etc/; autoindex on; } set $x y",
    "a.test; } server { listen 80; server_name victim.test",
    "a.test\n",
    "a.test\r\nb.test",
    "a.test b.test",
    "a.test;",
    "a.test#",
    "{a.test}",
    "$host",
    "~^.*$",
    "*.test",
    ".test",
    "a.*",
    "_",
    "a_b.test",
    '""',
    "",
    "a.test.",
    "a..test",
    "-a.test",
    "a-.test",
    "A.test",
    "bücher.test",
    "а.test",
    "127.0.0.1",
    "1.2.3",
    "[::1]",
    "a.test:80",
    "unix:/x",
    "a" * 64 + ".test",
    ".".join(["a" * 63] * 4)[:254],
    "a/../b",
    "a\x00.test",
]


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_never_reach_a_file(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("e")
    edge = Edge(directory, TEMPLATES, HttpConfig(address="127.0.0.1", port=free_port(), https_port=0))
    with pytest.raises(InvalidSite):
        await edge.set_site(Site("blog", ("good.test", name)))
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    "site",
    [
        Site("blog;", ("a.test",)),
        Site("../x", ("a.test",)),
        Site('x"}', ("a.test",)),
        Site("blog", ("a.test",), body_size="1m; } server {"),
        Site("blog", ("a.test",), body_size="1m\n"),
        Site("blog", ("a.test",), hsts='max-age=1"; x'),
        Site("blog", ("a.test",), redirects=(Redirect("b.test", 301, "https://c.test/\n"),)),
        Site("blog", ("a.test",), redirects=(Redirect("b.test", 301, "javascript:alert(1)"),)),
        Site("blog", ("a.test",), redirects=(Redirect("b.test", 200, "https://c.test"),)),
        Site("blog", ("a.test",), redirects=(Redirect("b.test b", 301, "https://c.test"),)),
    ],
)
async def test_hostile_settings_never_reach_a_file(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("e")
    edge = Edge(directory, TEMPLATES, HttpConfig(address="127.0.0.1", port=free_port(), https_port=0))
    with pytest.raises(InvalidSite):
        await edge.set_site(site)
    assert list(directory.iterdir()) == []


async def test_one_domain_has_one_app(bench: Bench) -> None:
    await bench.serve("blog")
    with pytest.raises(InvalidSite, match="already belongs to the app blog"):
        await bench.edge.set_site(Site("thief", ("mine.test", "blog.test")))


@pytest.mark.parametrize("victims", ["master", "workers", "all"])
async def test_killed_nginx_comes_back(bench: Bench, victims: str) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    assert await bench.edge.ensure_running() is False
    master = bench.edge._nginx.master()
    assert master is not None
    workers = master.children()
    killed = {"master": [master], "workers": workers, "all": [master, *workers]}[victims]
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(psutil.wait_procs, killed, 5)
    assert await bench.edge.ensure_running() is (victims != "workers")
    await until(lambda: bench.visitor.reaches(host))
    assert await bench.edge.in_flight() == {}
    await bench.serve("other")
    assert (await bench.visitor.get("other.test"))[0] == 503
    _, left = await asyncio.to_thread(psutil.wait_procs, workers, 10)
    assert victims == "workers" or not left, "nobody of the old master's, who keeps the cache small neither"


async def test_starting_again_adopts_the_running_nginx(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    first = bench.edge._nginx.master()
    (bench.directory / "nginx.pid").unlink()
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start()
    assert again._nginx.master() == first
    assert await bench.visitor.get(host) == (200, "hello")


async def test_blocks_of_an_older_version_are_written_anew_before_they_are_read(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"), body_size="20m")
    path = bench.directory / "sites" / "blog.conf"
    path.write_text(path.read_text().replace(f"{bench.directory}/locations.conf", "/nowhere/locations.conf"))
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start([Site("blog", (host,), body_size="20m")])
    assert await bench.visitor.get(host) == (200, "hello")
    assert list((bench.directory / "quarantine").iterdir()) == []


async def posted(bench: Bench, host: str, body: bytes) -> int:
    async with bench.visitor.session.post(bench.visitor.url(), headers={"Host": host}, data=body) as response:
        return response.status


async def test_files_written_by_a_daemon_that_died_before_the_reload_take_effect(bench: Bench) -> None:
    await bench.serve("blog", await bench.apps.saying("hello"), body_size="20m")
    path = bench.directory / "sites" / "blog.conf"
    path.write_text(path.read_text().replace("20m", "1k"))
    assert await posted(bench, "blog.test", b"x" * 2000) == 200
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start()
    assert await posted(bench, "blog.test", b"x" * 2000) == 413
    assert await again.set_site(Site("blog", ("blog.test",), body_size="1k")) is False


async def test_changing_a_site_of_a_dead_nginx_starts_it(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    await bench.edge.stop()
    await bench.edge.set_site(Site("blog", (host, "new.test")))
    assert await bench.visitor.get(host) == (200, "hello")
    assert await bench.visitor.get("new.test") == (200, "hello")


async def test_a_taken_port_is_named_with_its_holder() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(EdgeError) as caught:
            async with running_edge(port):
                pass
    assert str(port) in caught.value.detail and f"(pid {os.getpid()})" in caught.value.detail
    assert caught.value.hint


async def test_two_edges_run_side_by_side(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("first"))
    async with running_edge() as (second, _, http):
        await second.set_site(Site("blog", (host,)))
        await second.set_route(Route("blog", (await bench.apps.saying("second"),), 1))
        url = f"http://127.0.0.1:{http.port}/"
        async with bench.visitor.session.get(url, headers={"Host": host}) as response:
            assert await response.text() == "second"
    assert await bench.visitor.get(host) == (200, "first")


async def test_a_hundred_domains_and_long_names(bench: Bench) -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 56, "test"])
    assert len(longest) == 253
    await bench.edge.set_site(Site("blog", (*(f"h{number}.test" for number in range(100)), longest)))
    await bench.edge.set_route(Route("blog", (Endpoint("127.0.0.1", free_port()),), 1))
    assert (await bench.visitor.get(longest))[0] == 502


async def test_wildcards_and_redirects(bench: Bench) -> None:
    sites = {"blog": ("*.blog.test", "own.blog.test"), "deep": ("*.deep.blog.test",), "one": ("one.blog.test",)}
    for app, names in sites.items():
        await bench.edge.set_site(Site(app, names))
        await bench.edge.set_route(Route(app, (await bench.apps.saying(app),), 1))
    answers = {
        "x.blog.test": "blog",
        "x.y.blog.test": "blog",
        "own.blog.test": "blog",
        "one.blog.test": "one",
        "a.deep.blog.test": "deep",
        "deep.blog.test": "blog",
        "ONE.blog.test.": "one",
    }
    for host, app in answers.items():
        assert await bench.visitor.get(host) == (200, app), host
    assert (await bench.visitor.get("blog.test"))[0] == 404
    redirects = (Redirect("old.test", 301, "https://new.test"), Redirect("*.old.test", 307, "http://new.test:81/base"))
    await bench.edge.set_site(Site("blog", sites["blog"], redirects))
    for host, status, target in (("old.test", 301, "https://new.test"), ("a.old.test", 307, "http://new.test:81/base")):
        async with bench.visitor.session.get(
            URL(bench.visitor.url("/a%20b?c=%26"), encoded=True), headers={"Host": host}, allow_redirects=False
        ) as response:
            assert (response.status, response.headers["Location"]) == (status, f"{target}/a%20b?c=%26")
    await bench.edge.set_site(Site("blog", ()))
    assert (await bench.visitor.get("old.test"))[0] == 404


async def test_what_needs_a_block_is_served_by_nothing_else(bench: Bench) -> None:
    """Neither when its file is lost, nor while it comes and goes."""
    host = await bench.serve("blog", await bench.apps.saying("secret"), body_size="20m")
    assert await bench.visitor.get(host) == (200, "secret")
    (bench.directory / "sites" / "blog.conf").unlink()
    await bench.edge.set_site(Site("other", ("other.test",), body_size="10m"))
    assert (await bench.visitor.get(host))[0] == 503
    assert await bench.edge.differences(
        [Site("blog", (host,), body_size="20m"), Site("other", ("other.test",), body_size="10m")]
    ) == ["the server block of blog is missing"]
    assert await bench.edge.sync_sites([Site("blog", (host,), body_size="20m")]) == {}
    assert await bench.visitor.get(host) == (200, "secret")


async def test_tables_survive_nginx_and_its_daemon(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    await bench.edge.set_site(Site("blog", (host, "*.wild.test")))
    await bench.edge.stop()
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start()
    assert await bench.visitor.get("a.wild.test") == (200, "hello")
    for name in ("hosts.txt", "routes.txt"):
        (bench.directory / name).write_text("garbage\nblog.test app\n\0 \x01\nblog nonsense\n*.wild.test redirect x\n")
    await again.stop()
    await again.start()
    assert (await bench.visitor.get(host))[0] in (404, 503)
    assert await again.differences([Site("blog", (host,))])
    assert await again.sync_sites([Site("blog", (host,))]) == {}
    assert await again.differences([Site("blog", (host,))]) == []
    assert (await bench.visitor.get("a.wild.test"))[0] == 404


async def test_blocks_that_only_conflict_with_each_other_stop_nobody(bench: Bench) -> None:
    """Each is fine alone; the second is refused, and whatever was written all the same is set aside at a start."""
    zone = "ssl_session_cache shared:apps:{}m;"
    host = await bench.serve("one", await bench.apps.saying("one"), snippet=zone.format(1))
    with pytest.raises(InvalidSite, match="conflicts"):
        await bench.edge.set_site(Site("two", ("two.test",), snippet=zone.format(2)))
    await bench.edge.set_site(Site("two", ("two.test",), snippet=zone.format(1)))
    path = bench.directory / "sites" / "two.conf"
    path.write_text(path.read_text().replace("apps:1m", "apps:2m"))
    await bench.edge.stop()
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start()
    assert await bench.visitor.get(host) == (200, "one")
    assert not path.exists() and (bench.directory / "quarantine" / "two.conf").exists()


async def test_a_broken_main_configuration_is_no_blocks_fault(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"), body_size="20m")
    await bench.edge.stop()
    broken = Edge(bench.directory, TEMPLATES, replace(bench.http, resolvers="999.1.1.1:53"))
    with pytest.raises(EdgeError, match=r"999\.1\.1\.1"):
        await broken.start()
    assert (bench.directory / "sites" / "blog.conf").exists() and not list((bench.directory / "quarantine").iterdir())
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start()
    assert await bench.visitor.get(host) == (200, "hello")


async def test_an_upgrade_from_a_version_without_tables_serves_from_the_first_moment(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("hello"))
    await bench.edge.stop()
    for name in ("hosts.txt", "policies.txt", "pages.txt"):
        (bench.directory / name).unlink(missing_ok=True)
    (bench.directory / "sites" / "blog.conf").write_text("server { listen 127.0.0.1:1; }")  # as each app had one
    site = Site("blog", (host,), policy='{"addresses":{"deny":["127.0.0.1/32"]}}')
    closed = Site("closed", ("closed.test",), body_size="1m")
    again = Edge(bench.directory, TEMPLATES, bench.http)
    await again.start([site, closed])
    assert (await bench.visitor.get(host))[0] == 403 and (await bench.visitor.get("closed.test"))[0] == 503
    assert await again.differences([site, closed]) == []


async def test_a_block_serves_its_own_app_alone(bench: Bench) -> None:
    """A wildcard's block is no way around what another app's block asks for."""
    await bench.serve("wide", await bench.apps.saying("wide"), body_size="20m")
    await bench.edge.set_site(Site("wide", ("*.blog.test",), body_size="20m"))
    await bench.serve("inner", await bench.apps.saying("secret"), body_size="10m")
    await bench.edge.set_site(Site("inner", ("inner.blog.test",), body_size="10m"))
    assert await bench.visitor.get("inner.blog.test") == (200, "secret")
    (bench.directory / "sites" / "inner.conf").unlink()
    await bench.edge.set_site(Site("other", ("other.test",), body_size="1m"))
    assert (await bench.visitor.get("inner.blog.test"))[0] == 503
    assert await bench.visitor.get("x.blog.test") == (200, "wide")


async def test_a_wildcards_block_says_nothing_of_names_that_others_have(bench: Bench) -> None:
    wide = Site("wide", ("*.blog.test",), snippet='add_header X-Block "wide";')
    await bench.serve("wide", await bench.apps.saying("wide"))
    await bench.serve("late", await bench.apps.saying("late"))
    await bench.edge.set_site(wide)
    late, early = Site("late", ("late.blog.test",)), Site("early", ("early.blog.test", "blog.test"))
    await bench.edge.set_site(late)
    for sites in ([wide, late], [wide, early]):
        if sites[1] is early:
            await bench.edge.set_route(Route("early", (await bench.apps.saying("early"),), 1))
            assert await bench.edge.sync_sites(sites) == {}
        host, app = sites[1].domains[0], sites[1].app
        async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}) as response:
            assert (await response.text(), response.headers.get("X-Block")) == (app, None)
        async with bench.visitor.session.get(bench.visitor.url(), headers={"Host": "x.blog.test"}) as response:
            assert (await response.text(), response.headers.get("X-Block")) == ("wide", "wide")
        assert await bench.edge.differences(sites) == []
    assert await bench.edge.sync_sites([early]) == {}
    assert not list((bench.directory / "sites").iterdir())
