"""Several config vars as one release, and one image through several environments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apps import app
from tests.box import Box

pytestmark = pytest.mark.engine

_ANSWER = (
    "def answer(self):\n    body = f\"{os.environ.get('A', '-')} {os.environ.get('B', '-')}\".encode()\n"
    "    self.send_response(200)\n    self.send_header('Content-Length', str(len(body)))\n"
    "    self.end_headers()\n    self.wfile.write(body)\nHandler.do_GET = answer\nserve()"
)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box("[run]\ndrain = 0.5\nstream_drain = 0.5\nstop_timeout = 2\n").start()
    yield box
    box.close()


def ok(box: Box, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 0, (words, done.all)
    return done.out


def test_staged_config_vars_are_one_release(box: Box) -> None:
    assert box.push(box.repository(app(_ANSWER)), "staged").status == 0
    ok(box, "config:set", "staged", "A=1", "B=1")
    ok(box, "config:set", "--stage", "staged", "A=secret-2")
    told = ok(box, "config:unset", "--stage", "staged", "B")
    assert "2 are staged" in told and "config:apply staged" in told
    ok(box, "config:set", "--stage", "staged", "NEW=3", "A=secret-3")
    assert box.get("staged").text == "1 1"
    assert box.json("config:diff", "staged") == [
        {"name": "A", "change": "changed"},
        {"name": "B", "change": "unset"},
        {"name": "NEW", "change": "set"},
    ]
    printed = ok(box, "config:diff", "staged")
    assert "secret" not in printed
    before = box.json("releases", "staged")[0]["number"]
    applied = ok(box, "config:apply", "staged")
    assert "Applied A, B, NEW" in applied and "secret" not in applied
    assert box.json("releases", "staged")[0]["number"] == before + 1
    assert box.get("staged").text == "secret-3 -"
    again = box.ssh("config:apply", "staged")
    assert again.status == 1 and "nothing is staged" in again.err


def test_what_is_staged_can_be_dropped_and_is_checked_like_the_rest(box: Box) -> None:
    ok(box, "apps:create", "drop")
    refused = box.ssh("config:set", "--stage", "drop", "PORT=1")
    assert refused.status == 1 and "set by paasd itself" in refused.err
    ok(box, "config:set", "--stage", "drop", "A=1")
    assert "Discarded 1" in ok(box, "config:discard", "drop")
    assert box.json("config:diff", "drop") == []
    # Without a release there is nothing to deploy, but the values are there for the first one.
    ok(box, "config:set", "--stage", "drop", "A=1")
    ok(box, "config:apply", "drop")
    assert ok(box, "config:get", "drop", "A") == "1\n"
    assert box.json("releases", "drop") == []


def test_an_image_moves_along_a_pipeline_with_each_app_s_own_config(box: Box) -> None:
    ok(box, "pipelines:create", "shop")
    for name, environment in (("shop-staging", "staging"), ("shop", "production")):
        ok(box, "apps:create", name)
        ok(box, "config:set", name, f"A={environment}")
        ok(box, "pipelines:add", "shop", name, environment)
    empty = box.ssh("promote", "shop-staging")
    assert empty.status == 1 and "has not been deployed yet" in empty.err
    scripts = '{"scripts": {"dokku": {"predeploy": "echo preparing for $A"}}}'
    repository = box.repository(app(_ANSWER, app__json=scripts))
    assert box.push(repository, "shop-staging").status == 0
    done = ok(box, "promote", "shop-staging")
    assert "Promoting shop-staging v1 to shop as v1" in done and "preparing for production" in done
    assert box.get("shop").text == "production -" and box.get("shop-staging").text == "staging -"
    images = [box.json("releases:info", name, "v1")["image"] for name in ("shop", "shop-staging")]
    assert images[0] == images[1]
    assert box.json("builds", "shop") == []
    assert box.json("releases", "shop")[0]["description"] == "Promote shop-staging v1"
    info = box.json("pipelines:info", "shop")["apps"]
    assert [(a["app"], a["environment"]) for a in info] == [("shop-staging", "staging"), ("shop", "production")]
    end = box.ssh("promote", "shop")
    assert end.status == 1 and "no app comes after it" in end.err
    # The image outlives the app that built it.
    ok(box, "apps:destroy", "shop-staging", "--force")
    ok(box, "ps:restart", "shop")
    assert box.get("shop").text == "production -"
    ok(box, "pipelines:destroy", "shop")
    alone = box.ssh("promote", "shop")
    assert alone.status == 1 and "in no pipeline" in alone.err and "promote shop <app>" in alone.err
    itself = box.ssh("promote", "shop", "shop")
    assert itself.status == 1 and "itself" in itself.err
