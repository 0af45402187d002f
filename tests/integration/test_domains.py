"""Wildcards, redirects, global domains and paths of other apps, asked for by real clients at a whole box."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.apps import app as files
from tests.box import Answer, Box, eventually
from tests.commands import ok, refused
from tests.tls import Authority, handshake

ECHO = """
def echo(self):
    body = f"{NAME} {self.path} {self.headers['Host']}".encode()
    self.send_response(200)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)
Handler.do_GET = echo
serve()
"""


@pytest.fixture(scope="module")
def shop(box: Box) -> Iterator[Box]:
    """The apps `shop` and `shop-api` of one project; each says its name and what it was asked for."""
    ok(box, "apps:create", "shop")
    ok(box, "apps:create", "shop-api", "--project", "shop")
    for name in ("shop", "shop-api"):
        done = box.push(box.repository(files(f"NAME = {name!r}\n{ECHO}")), name)
        assert done.status == 0, done
    yield box
    for name in ("shop", "shop-api"):
        box.ssh("apps:destroy", name, "--force")


@pytest.fixture
def bare(shop: Box) -> Iterator[Box]:
    """With whatever a test set taken away again."""
    yield shop
    for name in ("shop", "shop-api"):
        for redirect in shop.json("redirects:list", name):
            ok(shop, "redirects:remove", name, redirect["host"])
        for route in shop.json("routes:list", name):
            ok(shop, "routes:remove", name, route["prefix"])
        ok(shop, "domains:clear", name)
    ok(shop, "domains:clear-global")


def text(box: Box, host: str, path: str = "/") -> str:
    answer = box.get("", path, host=host)
    assert answer.status == 200, answer
    return answer.text


def test_a_wildcard_serves_what_nobody_has_by_name(bare: Box) -> None:
    ok(bare, "domains:add", "shop", "'*.shop.test'")
    assert text(bare, "any.shop.test") == "shop / any.shop.test"
    assert text(bare, "OTHER.shop.test").startswith("shop / ")
    assert bare.get("", host="shop.test").status == 404, "its parent is another name"
    ok(bare, "domains:add", "shop-api", "api.shop.test")
    assert text(bare, "api.shop.test") == "shop-api / api.shop.test"
    assert text(bare, "any.shop.test") == "shop / any.shop.test"
    ok(bare, "domains:remove", "shop-api", "api.shop.test")
    assert text(bare, "api.shop.test") == "shop / api.shop.test"
    assert bare.json("apps:info", "shop")["url"] == f"http://shop.localhost:{bare.http_port}"
    ok(bare, "domains:clear", "shop")
    assert bare.get("", host="any.shop.test").status == 404


def test_international_names_are_shown_in_both_forms(bare: Box) -> None:
    said = ok(bare, "domains:add", "shop", "Bücher.shop.test")
    assert "Added bücher.shop.test (xn--bcher-kva.shop.test) to shop" in said
    assert text(bare, "xn--bcher-kva.shop.test").startswith("shop ")
    assert "bücher.shop.test (xn--bcher-kva.shop.test)" in ok(bare, "domains:list", "shop")
    assert bare.json("domains:list", "shop") == ["xn--bcher-kva.shop.test", "shop.localhost"]
    ok(bare, "domains:remove", "shop", "BÜCHER.shop.test")
    assert bare.get("", host="xn--bcher-kva.shop.test").status == 404


def test_setting_replaces_all_in_one_step(bare: Box) -> None:
    ok(bare, "domains:add", "shop", "a.shop.test", "b.shop.test")
    assert "taken.shop.test already" in refused_after_taking(bare)
    assert bare.json("domains:list", "shop") == ["a.shop.test", "b.shop.test", "shop.localhost"]
    ok(bare, "domains:set", "shop", "c.shop.test", "b.shop.test")
    assert [bare.get("", host=f"{name}.shop.test").status for name in "abc"] == [404, 200, 200]
    assert bare.json("apps:info", "shop")["url"] == f"http://c.shop.test:{bare.http_port}"


def refused_after_taking(box: Box) -> str:
    ok(box, "domains:add", "shop-api", "taken.shop.test")
    return refused(box, "domains:set", "shop", "c.shop.test", "taken.shop.test")


def test_names_of_others_stay_theirs(bare: Box) -> None:
    ok(bare, "domains:add", "shop", "mine.shop.test", "'*.shop.test'")
    ok(bare, "redirects:add", "shop", "old.shop.test", "mine.shop.test")
    for name in ("mine.shop.test", "'*.shop.test'", "old.shop.test"):
        assert "already belongs to another app" in refused(bare, "domains:add", "shop-api", name)
    for name in ("mine.shop.test", "old.shop.test"):
        assert "already belongs" in refused(bare, "redirects:add", "shop-api", name, "https://evil.test")
    for name in ("shop.localhost", "x.localhost", "'*.localhost'", "'*.shop.localhost'"):
        refused(bare, "domains:add", "shop-api", name)
    assert "no domain" in refused(bare, "domains:remove", "shop-api", "mine.shop.test")
    assert "does not redirect" in refused(bare, "redirects:remove", "shop-api", "old.shop.test")
    assert text(bare, "mine.shop.test").startswith("shop ") and text(bare, "x.shop.test").startswith("shop ")


def test_global_domains_reach_every_app_at_once(bare: Box) -> None:
    assert "<app>.all.test" in ok(bare, "domains:set-global", "all.test")
    assert text(bare, "shop.all.test") == "shop / shop.all.test"
    assert text(bare, "shop-api.all.test").startswith("shop-api ")
    ok(bare, "apps:create", "later")
    try:
        assert bare.get("", host="later.all.test").status == 503
        assert "box's own domain" in refused(bare, "domains:add", "later", "x.all.test")
        ok(bare, "apps:rename", "later", "latest")
        assert [bare.get("", host=f"{name}.all.test").status for name in ("later", "latest")] == [404, 503]
    finally:
        bare.ssh("apps:destroy", "later", "--force")
        bare.ssh("apps:destroy", "latest", "--force")
    assert bare.json("domains:report", "--global") == {"items": ["all.test"], "built_in": "localhost"}
    ok(bare, "domains:clear-global")
    assert bare.get("", host="shop.all.test").status == 404 and text(bare, "shop.localhost").startswith("shop ")


def test_nobody_gets_the_host_name_of_paasd_itself(new_box: Callable[..., Box]) -> None:
    box = new_box('[http]\npanel = "panel.localhost"\n').start()
    ok(box, "apps:create", "shop")
    for words in (("apps:create", "panel"), ("apps:rename", "shop", "panel")):
        assert "paasd itself" in refused(box, *words)
    assert [each["name"] for each in box.json("apps:list")] == ["shop"]


def test_where_names_point_is_said_and_refuses_nothing(bare: Box) -> None:
    said = ok(bare, "domains:add", "shop", "www.paasd.invalid")
    assert "www.paasd.invalid" in said.splitlines()[1], said
    assert text(bare, "www.paasd.invalid").startswith("shop ")
    found = {each["name"]: each for each in bare.json("domains:report", "shop")["items"]}
    assert (
        found["www.paasd.invalid"]["dns"] in ("missing", "unknown") and found["www.paasd.invalid"]["kind"] == "domain"
    )
    assert found["shop.localhost"]["dns"] == "here" and found["shop.localhost"]["kind"] == "built-in"


def location(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers.get("Location", "")


def test_redirects_keep_path_and_query(bare: Box) -> None:
    ok(bare, "domains:add", "shop", "shop.test")
    here = f"http://shop.test:{bare.http_port}"
    assert "www.shop.test redirects to shop.test (301)" in ok(
        bare, "redirects:add", "shop", "www.shop.test", "shop.test"
    )
    path = "/a%20b/c%2Fd?x=1&y=%26&z"
    assert location(bare.get("", path, host="www.shop.test")) == (301, f"{here}{path}")
    assert location(bare.get("", host="www.shop.test")) == (301, f"{here}/")
    for status in ("302", "307", "308"):
        host = f"s{status}.shop.test"
        ok(bare, "redirects:add", "shop", host, "https://elsewhere.test:8443/base/", "--status", status)
        assert location(bare.get("", path, host=host)) == (int(status), f"https://elsewhere.test:8443/base{path}")
    assert "is redirected to shop.test" in refused(bare, "domains:clear", "shop")
    assert "to itself" in refused(bare, "redirects:add", "shop", "loop.shop.test", "http://loop.shop.test/x")
    assert {each["host"]: each["url"] for each in bare.json("redirects:list", "shop")}["www.shop.test"] == here
    ok(bare, "redirects:remove", "shop", "www.shop.test")
    assert bare.get("", host="www.shop.test").status == 404
    ok(bare, "domains:add", "shop", "www.shop.test")
    assert text(bare, "www.shop.test").startswith("shop ")


def test_a_redirect_wins_over_a_wildcard(bare: Box) -> None:
    ok(bare, "domains:add", "shop", "'*.shop.test'")
    ok(bare, "redirects:add", "shop", "old.shop.test", "new.shop.test")
    assert location(bare.get("", host="old.shop.test")) == (301, f"http://new.shop.test:{bare.http_port}/")
    assert text(bare, "new.shop.test").startswith("shop ")


def test_https_redirects_with_a_certificate_of_its_own(bare: Box) -> None:
    authority = Authority.new()
    ok(bare, "domains:add", "shop", "shop.test", "'*.w.shop.test'")
    ok(bare, "redirects:add", "shop", "www.shop.test", "shop.test")
    names = ("shop.test", "www.shop.test", "*.w.shop.test")
    ok(bare, "certs:import", "shop", stdin="".join(authority.leaf(names)) + authority.pem)
    try:
        for host in ("shop.test", "any.w.shop.test"):
            request = f"GET /x?y HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            answer = handshake(bare.https_port, host, trust=authority.pem, send=request).answer
            assert b"HTTP/1.1 200" in answer and f"shop /x?y {host}".encode() in answer
        target = f"https://shop.test:{bare.https_port}/x?y"
        eventually(lambda: redirected_to(bare, authority) == target)
        assert location(bare.get("", "/x?y", host="www.shop.test")) == (301, target), "plain HTTP goes there straight"
        assert bare.get("", "/x", host="any.w.shop.test").status == 308
    finally:
        for each in bare.json("certs:list", "shop"):
            ok(bare, "certs:remove", "shop", each["id"])


def redirected_to(box: Box, authority: Authority) -> str:
    request = b"GET /x?y HTTP/1.1\r\nHost: www.shop.test\r\nConnection: close\r\n\r\n"
    answer = handshake(box.https_port, "www.shop.test", trust=authority.pem, send=request).answer.decode()
    assert answer.startswith("HTTP/1.1 301"), answer
    return next(line.partition(": ")[2] for line in answer.splitlines() if line.startswith("Location: "))


def test_paths_go_to_the_other_app_as_they_are(bare: Box) -> None:
    ok(bare, "routes:add", "shop", "/api", "shop-api")
    for path in ("/api", "/api/", "/api/x?y=1&z=%20", "/api/a%20b", "/api/a%2Fb", "/%61pi/x", "/api?q"):
        assert text(bare, "shop.localhost", path) == f"shop-api {path} shop.localhost"
    for path in ("/", "/apix", "/ap", "/x/api", "/API", "/api.html", "/?/api/"):
        assert text(bare, "shop.localhost", path) == f"shop {path} shop.localhost"
    assert text(bare, "shop-api.localhost", "/api") == "shop-api /api shop-api.localhost"
    ok(bare, "routes:remove", "shop", "/api")
    assert text(bare, "shop.localhost", "/api") == "shop /api shop.localhost"


def test_stripped_paths_keep_the_query(bare: Box) -> None:
    ok(bare, "routes:add", "shop", "/api", "shop-api", "--strip")
    for path, seen in {
        "/api": "/",
        "/api/": "/",
        "/api?q=1": "/?q=1",
        "/api/x": "/x",
        "/api/x?y=1&z=%20%2F": "/x?y=1&z=%20%2F",
        "/api/a%20b%3Fc%23d": "/a%20b%3Fc%23d",
        "/api/%0Ax": "/%0Ax",
        "/api/%C3%BC": "/%C3%BC",
        "/api/100%25": "/100%25",
        "/api//x": "/x",
    }.items():
        assert text(bare, "shop.localhost", path) == f"shop-api {seen} shop.localhost"
    assert text(bare, "shop.localhost", "/apix") == "shop /apix shop.localhost"


def test_the_longest_path_wins(bare: Box) -> None:
    ok(bare, "routes:add", "shop", "/a", "shop-api", "--strip")
    ok(bare, "routes:add", "shop", "/a/b", "shop-api")
    assert text(bare, "shop.localhost", "/a/b/c").startswith("shop-api /a/b/c ")
    assert text(bare, "shop.localhost", "/a/bc").startswith("shop-api /bc ")
    assert [each["prefix"] for each in bare.json("routes:list", "shop")] == ["/a/b", "/a"]


def test_only_apps_of_the_same_project_answer_paths(bare: Box) -> None:
    ok(bare, "apps:create", "stranger")
    try:
        assert "of the project shop" in refused(bare, "routes:add", "shop", "/x", "stranger")
        assert "no app named" in refused(bare, "routes:add", "shop", "/x", "nobody")
        assert "of the project shop" in refused(bare, "routes:add", "shop", "/x", "shop")
        for prefix in ("/", "x", "/a/..", "'/a;b'", "'/{x}'", "'/~^x$'"):
            assert "invalid path" in refused(bare, "routes:add", "shop", prefix, "shop-api")
    finally:
        ok(bare, "apps:destroy", "stranger", "--force")
    assert text(bare, "shop.localhost", "/x").startswith("shop ")


def test_a_route_follows_the_other_app(bare: Box) -> None:
    ok(bare, "apps:create", "shop-cart", "--project", "shop")
    ok(bare, "routes:add", "shop", "/cart", "shop-cart")
    assert bare.get("shop", "/cart").status == 503, "it has no release yet"
    ok(bare, "routes:add", "shop", "/api", "shop-api")
    ok(bare, "apps:rename", "shop-api", "shop-backend")
    assert text(bare, "shop.localhost", "/api").startswith("shop-api /api ")
    assert bare.json("routes:list", "shop")[0]["app"] in ("shop-backend", "shop-cart")
    ok(bare, "apps:rename", "shop-backend", "shop-api")
    assert text(bare, "shop.localhost", "/api").startswith("shop-api /api ")
    ok(bare, "apps:destroy", "shop-cart", "--force")
    assert text(bare, "shop.localhost", "/cart").startswith("shop /cart ")
    assert [each["prefix"] for each in bare.json("routes:list", "shop")] == ["/api"]


def test_a_route_wakes_the_other_app(bare: Box) -> None:
    ok(bare, "routes:add", "shop", "/api", "shop-api", "--strip")
    ok(bare, "sleep:set", "shop-api", "after=1h")
    try:
        ok(bare, "sleep:now", "shop-api")
        assert bare.get("", "/api/x?y", host="shop.localhost", timeout=60).text == "shop-api /x?y shop.localhost"
        assert bare.get("", "/x", host="shop.localhost").text == "shop /x shop.localhost"
    finally:
        ok(bare, "sleep:off", "shop-api")


def test_a_clone_has_none_of_it(bare: Box) -> None:
    ok(bare, "domains:add", "shop", "shop.test")
    ok(bare, "redirects:add", "shop", "www.shop.test", "shop.test")
    ok(bare, "routes:add", "shop", "/api", "shop-api")
    ok(bare, "apps:clone", "shop", "shop-copy")
    try:
        assert bare.json("domains:list", "shop-copy") == ["shop-copy.localhost"]
        assert bare.json("redirects:list", "shop-copy") == bare.json("routes:list", "shop-copy") == []
        assert text(bare, "shop-copy.localhost", "/api").startswith("shop /api ")
    finally:
        ok(bare, "apps:destroy", "shop-copy", "--force")


def test_nothing_of_it_reloads_nginx_or_takes_long(bare: Box) -> None:
    before = loaded(bare)
    began = time.monotonic()
    ok(bare, "domains:set-global", "all.test")
    ok(bare, "domains:set", "shop", "shop.test", "'*.shop.test'")
    ok(bare, "redirects:add", "shop", "www.shop.test", "shop.test")
    ok(bare, "routes:add", "shop", "/api", "shop-api")
    assert text(bare, "x.shop.test", "/api").startswith("shop-api ")
    assert time.monotonic() - began < 30
    assert loaded(bare) == before
    bare.settles()


def loaded(box: Box) -> str:
    """What Nginx has loaded last, and when."""
    path = box.data / "edge" / "loaded"
    return f"{path.read_text()} {path.stat().st_mtime_ns}"
