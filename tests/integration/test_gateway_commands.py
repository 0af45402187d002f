"""edge:* and traffic:report, as somebody types them."""

from __future__ import annotations

import pytest

from tests.box import Box
from tests.images import TEST_IMAGE

pytestmark = pytest.mark.engine

_PROCFILE = "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n"


@pytest.fixture(scope="module")
def gated(box: Box) -> str:
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n", "Procfile": _PROCFILE, "index.html": "hello"}
    done = box.push(box.repository(files), "gated")
    assert done.status == 0, done
    return "gated"


def test_settings_are_in_effect_at_once(box: Box, gated: str) -> None:
    assert "Nothing is set" in box.ssh("edge:report", gated).out
    done = box.ssh("edge:set", gated, "allow", "10.0.0.0/8,", "192.0.2.7")
    assert "Set allow of gated to 10.0.0.0/8 192.0.2.7/32" in done.out
    assert box.get(gated).status == 403
    assert "192.0.2.7/32" in box.ssh("edge:report", gated).out
    assert "192.0.2.7/32" in box.ssh("nginx:show-config", gated).out
    assert box.ssh("edge:set", gated, "allow").status == 0
    assert box.get(gated).text == "hello"
    assert box.json("edge:report", gated)["allow"] == {**box.json("edge:report", gated)["allow"], "set": False}
    box.settles()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("allow", "10.0.0.1/8"), "addresses or networks"),
        (("allow", "$host"), "addresses or networks"),
        (("body-size", "1; }"), "a number of bytes"),
        (("nonsense", "1"), "there is no edge setting"),
        (("breaker.share", "101"), "a percentage"),
    ],
)
def test_what_is_refused_says_what_it_must_be(box: Box, gated: str, words: tuple[str, ...], said: str) -> None:
    done = box.ssh("edge:set", gated, *(f"'{word}'" for word in words))
    assert done.status == 1 and said in done.err, done
    assert "Nothing is set" in box.ssh("edge:report", gated).out


def test_a_setting_that_nginx_refuses_is_not_kept(box: Box, gated: str) -> None:
    assert box.ssh("edge:set", gated, "body-size", "1k").status == 0
    done = box.ssh("edge:set", gated, "body-size", "999999g")
    text = box.ssh("edge:report", gated).out
    assert ("999999g" in text) is (done.status == 0), done
    assert ("1k" in text) is (done.status != 0), done
    assert box.get(gated).text == "hello"
    assert box.ssh("edge:set", gated, "body-size").status == 0
    box.settles()


def test_traffic(box: Box, gated: str) -> None:
    before = box.json("traffic:report", gated)
    for path in ("/", "/", "/missing"):
        box.get(gated, path)
    found = box.json("traffic:report", gated)
    assert found["requests"] - before["requests"] == 3
    assert found["statuses"]["4xx"] - before["statuses"]["4xx"] == 1
    assert 0 < found["p50"] <= found["p95"] <= found["p99"] < 30 and 0 < found["apdex"] <= 1
    assert found["breaker"] is None
    assert box.ssh("edge:set", gated, "breaker.share", "50%").status == 0
    box.get(gated)
    assert box.json("traffic:report", gated)["breaker"] == {"state": "closed", "seconds": 0.0}
    text = box.ssh("traffic:report", gated).out
    assert "Apdex" in text and "closed" in text
    assert box.ssh("edge:set", gated, "breaker.share").status == 0


def test_traffic_by_route(box: Box, gated: str) -> None:
    assert box.json("traffic:report", gated)["routes"] == [] and "ROUTE" not in box.ssh("traffic:report", gated).out
    assert "up to 20 paths" in box.ssh("edge:set", gated, "traffic.routes", "'/a;b'").err
    done = box.ssh("edge:set", gated, "traffic.routes", "'/missing/ /quiet'")
    assert "Set traffic.routes of gated to /missing /quiet" in done.out, done
    for path in ("/", "/missing", "/missing/too"):
        box.get(gated, path)
    missing, quiet = box.json("traffic:report", gated)["routes"]
    assert (missing["route"], missing["requests"], missing["statuses"]["4xx"]) == ("/missing", 2, 2)
    assert 0 < missing["p50"] <= missing["p99"] and missing["bytes_in"] > 0 < missing["bytes_out"]
    assert 0 < missing["apdex"] <= 1
    assert (quiet["route"], quiet["requests"], quiet["p50"], quiet["apdex"]) == ("/quiet", 0, None, None)
    lines = box.ssh("traffic:report", gated).out.splitlines()
    assert any(line.split()[:4] == ["/missing", "2", "2", "4xx"] for line in lines), lines
    assert any(line.split() == ["/quiet", "0", "-", "0", "0", "-", "-", "-", "-"] for line in lines), lines
    assert box.ssh("apps:create", "gated-api", "--project", gated).status == 0
    assert box.ssh("routes:add", gated, "/api", "gated-api").status == 0
    box.get(gated, "/api/x")
    found = {each["route"]: each["requests"] for each in box.json("traffic:report", gated)["routes"]}
    assert found == {"/api": 1, "/missing": 2, "/quiet": 0}
    assert box.json("traffic:report", "gated-api")["requests"] == 1
    box.settles()
    assert box.ssh("apps:destroy", "gated-api", "--force").status == 0
    assert box.ssh("edge:set", gated, "traffic.routes").status == 0
    assert box.json("traffic:report", gated)["routes"] == []


def test_an_administrators_own_lines(box: Box, gated: str) -> None:
    done = box.ssh("nginx:set-snippet", gated, stdin='location = /own {\n    return 200 "own lines";\n}\n')
    assert done.status == 0, done
    assert box.get(gated, "/own").text == "own lines" and box.get(gated).text == "hello"
    assert "own lines" in box.ssh("nginx:show-config", gated).out
    for broken, said in (("nonsense;", "nonsense"), ("location / { }", "duplicate location"), ("server {", "")):
        refused = box.ssh("nginx:set-snippet", gated, stdin=broken)
        assert refused.status == 1 and said in refused.err, refused
        assert box.get(gated, "/own").text == "own lines"
    for nothing in ("", "  \n", "a\0b;"):
        assert box.ssh("nginx:set-snippet", gated, stdin=nothing).status == 1
    assert box.ssh("apps:clone", gated, "bare").status == 0
    assert "own lines" not in box.ssh("nginx:show-config", "bare").out
    assert box.ssh("apps:destroy", "bare", "--force").status == 0
    assert box.ssh("nginx:clear-snippet", gated).status == 0
    assert box.get(gated, "/own").status == 404
    box.settles()
