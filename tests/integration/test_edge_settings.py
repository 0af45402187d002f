"""Settings of the edge by their commands, at a whole box."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.apps import app as files
from tests.box import Box, eventually
from tests.commands import ok, refused


@pytest.fixture
def blog(box: Box) -> Iterator[Box]:
    ok(box, "apps:create", "blog")
    yield box
    box.ssh("apps:destroy", "blog", "--force")


def test_maintenance(blog: Box) -> None:
    assert "off" in ok(blog, "maintenance:report", "blog")
    assert "No app" not in blog.get("blog").text
    ok(blog, "maintenance:on", "blog")
    assert "Under maintenance" in blog.get("blog").text
    page = '<p>Bäck soon; "5" o\'clock\n'
    assert f"HTML, {len(page.encode())} bytes" in ok(blog, "edge:set", "blog", "maintenance.page", stdin=page)
    answer = blog.get("blog")
    assert (answer.status, answer.text) == (503, page)
    report = ok(blog, "maintenance:report", "blog") + ok(blog, "edge:report", "blog")
    assert "on" in report and "HTML, " in report and page not in report
    assert blog.json("maintenance:report", "blog")["maintenance.page"] == page
    blog.settles()
    ok(blog, "edge:set", "blog", "maintenance.allow", "127.0.0.1")
    assert "Under maintenance" not in blog.get("blog").text and blog.get("blog").text != page
    ok(blog, "edge:set", "blog", "maintenance.allow")
    assert blog.get("blog").text == page
    ok(blog, "maintenance:off", "blog")
    assert blog.get("blog").text != page
    assert "nothing was changed" in refused(blog, "edge:set", "blog", "maintenance.page")
    ok(blog, "edge:set", "blog", "error-page.503", stdin="<p>none")
    assert blog.get("blog").text == "<p>none"
    ok(blog, "apps:rename", "blog", "blog2")
    try:
        assert blog.get("blog2").text == "<p>none"
        blog.settles()
    finally:
        ok(blog, "apps:rename", "blog2", "blog")


def test_a_page_that_is_none(blog: Box) -> None:
    for page in ("x" * 16385, "a\x00b", "\x1b[31m"):
        done = blog.ssh("edge:set", "blog", "error-page.502", stdin=page)
        assert done.status == 1 and "16 KiB" in done.err, done


def test_what_does_not_go_together_is_refused(blog: Box) -> None:
    ok(blog, "edge:set", "blog", "cors.credentials", "on")
    assert "do not go together" in refused(blog, "edge:set", "blog", "cors.origins", "'*'")
    assert "cors.origins" not in ok(blog, "edge:report", "blog")
    ok(blog, "edge:set", "blog", "cors.origins", "https://a.example")
    ok(blog, "edge:set", "blog", "cors.credentials")
    ok(blog, "edge:set", "blog", "cors.origins", "'*'")
    assert "do not go together" in refused(blog, "edge:set", "blog", "cors.credentials", "on")
    found = blog.api(
        "PATCH", "/apps/blog/edge", {"settings": {"cors.credentials": "on", "cors.origins": "https://b.example"}}
    )
    assert found["settings"]["cors.origins"]["value"] == "https://b.example"


def test_refusals_say_why(blog: Box) -> None:
    for rule, why in (
        ("set Host evil", "name that was asked for"),
        ("set X-Forwarded-For 1", "who asks"),
        ("set CSP a; b", 'in ""'),
    ):
        assert why in refused(blog, "edge:set", "blog", "header.request", f"'{rule}'")
    ok(blog, "edge:set", "blog", "header.response", "'set Content-Security-Policy \"a; b\"; remove Server'")
    assert 'set Content-Security-Policy "a; b"; remove Server' in ok(blog, "edge:report", "blog")


def test_logs_of_the_edge(blog: Box) -> None:
    assert "edge:set blog access-log on" in refused(blog, "nginx:access-logs", "blog")
    ok(blog, "edge:set", "blog", "access-log", "on")
    following = subprocess.Popen(
        [*blog.ssh_command(), "-p", str(blog.ssh_port), f"{blog.user}@127.0.0.1", "nginx:access-logs", "blog", "-t"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert following.stdout is not None
        for path in ("/a?token=secret", "/b"):
            blog.get("blog", path)
            line = json.loads(following.stdout.readline())
            assert (line["path"], line["status"], line["client"]) == (path.partition("?")[0], 503, "127.0.0.1")
            assert "secret" not in str(line)
    finally:
        following.terminate()
        following.communicate(timeout=20)
    lines = ok(blog, "nginx:access-logs", "blog", "--num", "1").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["/b"]
    errors = ok(blog, "nginx:error-logs", "blog")
    assert 'host: "blog.localhost"' in errors and "/b HTTP" in errors and "secret" not in errors
    assert "at most" in refused(blog, "nginx:access-logs", "blog", "-n", "1000000")
    blog.settles()
    path = blog.data / "edge" / "access" / "blog.log"
    assert path.exists()
    ok(blog, "apps:destroy", "blog", "--force")
    eventually(lambda: not path.exists())


def test_an_access_names_its_instance(blog: Box) -> None:
    ok(blog, "edge:set", "blog", "access-log", "on")
    done = blog.push(blog.repository(files("serve()\n")), "blog")
    assert done.status == 0, done
    blog.get("blog", "/live")

    def named() -> bool:
        lines = [json.loads(line) for line in ok(blog, "nginx:access-logs", "blog").splitlines()]
        return [line["instance"] for line in lines if line["path"] == "/live"] == ["web.1"]

    eventually(named)
