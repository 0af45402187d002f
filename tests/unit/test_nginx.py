"""The texts the edge writes and reads: host names, server blocks, the route table's lines, counters."""

from __future__ import annotations

from pathlib import Path

import pytest

from paasd.config import HttpConfig
from paasd.edge_values import Endpoint, Redirect, Route, Site
from paasd.errors import EdgeError, InvalidInput, InvalidSite
from paasd.identity.policy import Action, allows
from paasd.models import Actor
from paasd.route.control import parse_counters, parse_route, route_line
from paasd.route.files import replace_file
from paasd.route.hosts import all_lines, host_lines, server_name
from paasd.route.nginx import Nginx
from paasd.route.sites import SiteFiles

TEMPLATES = Path(__file__).parents[2] / "nginx"


@pytest.mark.parametrize(
    "name", ["a", "a.test", "xn--bcher-kva.test", "1.test", "3com.4you", "a-b--c.test", "localhost", "*.a.test"]
)
def test_good_host_names(name: str) -> None:
    assert server_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "_",
        "*",
        "*.",
        "*.test",
        "a.*.test",
        "*.*.a.test",
        "a b",
        "a;",
        "A",
        "1.2.3.4",
        "a.1",
        "a\n",
        "-a",
        "a-",
        "a.",
        "a" * 64,
    ],
)
def test_bad_host_names(name: str) -> None:
    with pytest.raises(InvalidSite) as caught:
        server_name(name)
    assert "\n" not in caught.value.detail and caught.value.hint


@pytest.fixture
def files(tmp_path: Path) -> SiteFiles:
    files = SiteFiles(tmp_path, TEMPLATES, HttpConfig(address="::", port=8080, https_port=0))
    files.create()
    return files


def test_site_text(files: SiteFiles) -> None:
    text = files.render(Site("blog", ("b.test", "a.test", "*.c.test", "b.test"), body_size="5m"))
    assert text is not None
    for line in (
        "listen [::]:8080;",
        "server_name *.c.test a.test b.test;",
        "client_max_body_size 5m;",
        'set $paasd_own "blog";',
    ):
        assert line in text
    assert text.count("server {") == 1, "HTTPS is off"


def test_only_administrators_may_add_own_lines() -> None:
    roles = {role: allows(Actor("o", "u", role, role), Action.NGINX_SNIPPET) for role in ("developer", "admin")}
    assert roles == {"developer": False, "admin": True}


def test_own_lines_may_end_in_a_comment(files: SiteFiles) -> None:
    text = files.render(Site("blog", ("a.test",), snippet="location = /x { return 204; }  # mine"))
    assert text is not None and "# mine\n" in text and text.index("# mine") < text.index("plain.conf")


def test_most_apps_have_no_server_block(files: SiteFiles) -> None:
    assert files.render(Site("blog", ("a.test",), hsts="max-age=1")) is None
    assert files.render(Site("blog", (), body_size="5m")) is None


def test_same_site_same_text(files: SiteFiles) -> None:
    one, other = (Site("blog", names, body_size="5m") for names in (("a.test", "b.test"), ("b.test", "a.test")))
    assert files.render(one) == files.render(other)


def test_lines_of_hosts() -> None:
    site = Site("blog", ("a.test",), (Redirect("b.test", 308, "https://a.test/x"),), "5m", "max-age=1; preload", "PEM")
    assert host_lines(site) == {
        "a.test": "app blog own clients hsts=max-age=1;_preload",
        "b.test": "redirect blog 308 https://a.test/x",
    }
    lines, refused = all_lines([site, Site("thief", ("a.test", "c.test")), Site("evil", ("x y",))])
    assert lines.keys() == {"a.test", "b.test"} and refused.keys() == {"thief", "evil"}


def test_quarantine_is_emptied_by_the_next_good_text(files: SiteFiles) -> None:
    files.set_aside("blog", "bad text", "line one\nline two")
    assert (files.quarantine / "blog.conf").read_text() == "# line one\n# line two\nbad text"
    files.write("blog", "good text")
    assert files.read("blog") == "good text" and not list(files.quarantine.iterdir())
    files.remove("blog")
    files.remove("blog")
    assert files.read("blog") is None


def test_app_names_cannot_leave_the_directory(files: SiteFiles) -> None:
    for name in ("../routes", "/etc/passwd", "a/b", ".."):
        with pytest.raises(InvalidInput):
            files.read(name)
        with pytest.raises(InvalidInput):
            files.remove(name)


def test_a_file_is_replaced_whole_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("old", "new"):
        replace_file(path, text)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_route_survives_the_round_trip() -> None:
    for route, line in (
        (
            Route("blog", (Endpoint("10.0.0.1", 5000), Endpoint("10.0.0.2", 5000, 7)), 12),
            "12 10.0.0.1:5000/1 10.0.0.2:5000/7",
        ),
        (Route("blog", (), 3, hold=2.5), "3 hold=2.5"),
        (Route("empty", (), 0), "0"),
    ):
        assert route_line(route) == line and parse_route(route.app, line) == route


@pytest.mark.parametrize(
    "endpoint",
    [Endpoint("host", 1), Endpoint("10.0.0.1 10.0.0.2", 1), Endpoint("10.0.0.1", 65536), Endpoint("10.0.0.1", 1, 1001)],
)
def test_endpoints_outside_their_grammar(endpoint: Endpoint) -> None:
    with pytest.raises(InvalidInput):
        route_line(Route("blog", (endpoint,)))


def test_counters_are_named() -> None:
    counters = parse_counters("5 1000\nblog 6 0 3 1 1 1 100 2000 4321 3 2 1\n")["blog"]
    assert counters.requests == 6
    assert counters.statuses == {"1xx": 0, "2xx": 3, "3xx": 1, "4xx": 1, "5xx": 1}
    assert (counters.bytes_in, counters.bytes_out, counters.seconds) == (100, 2000, 4.321)
    assert counters.latency == {0.005: 3, 1.0: 2, float("inf"): 1}


def test_paths_that_a_configuration_cannot_hold_are_refused() -> None:
    for directory in ('/tmp/a"b', "/tmp/a;b", "/tmp/$x", "/tmp/a b", "/tmp/a\nb"):
        with pytest.raises(EdgeError, match="characters"):
            Nginx(Path(directory), TEMPLATES, HttpConfig(), None)
