"""Branches that become apps of their own for a while."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator

import pytest

from tests.apps import app
from tests.box import Box, Repository, eventually
from tests.tls import Authority

pytestmark = pytest.mark.engine

_ANSWER = (
    "def answer(self):\n    body = f\"WORD {os.environ.get('OPEN', '-')} {os.environ.get('SECRET', '-')}\".encode()\n"
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


def answering(word: str) -> dict[str, str]:
    return app(_ANSWER.replace("WORD", word))


@pytest.fixture(scope="module")
def repository(box: Box) -> Repository:
    ok(box, "apps:create", "shop")
    ok(box, "config:set", "shop", "OPEN=1", "SECRET=2")
    repository = box.repository(answering("main"))
    assert box.push(repository, "shop").status == 0
    return repository


def test_without_previews_another_branch_is_refused_with_both_ways_on(box: Box, repository: Repository) -> None:
    refused = box.push(repository, "shop", "main:feature/x")
    assert refused.status != 0
    assert "feature/x:main" in refused.all and "previews:enable shop" in refused.all


def test_a_branch_becomes_an_app_and_goes_with_the_branch(box: Box, repository: Repository) -> None:
    told = ok(box, "previews:enable", "shop", "--inherit", "OPEN", "--ttl", "2d", "--limit", "2")
    assert "OPEN" in told and "SECRET" not in told
    repository.git("checkout", "-q", "-b", "feature/x")
    repository.commit(answering("feature"))
    done = box.push(repository, "shop", "feature/x")
    assert done.status == 0, done.all
    assert (
        "Preview feature-x--shop of shop, for 2.0 days" in done.all and "http://feature-x--shop.localhost" in done.all
    )
    assert box.get("feature-x--shop").text == "feature 1 -"
    assert box.get("shop").text == "main 1 2"
    listed = box.json("previews", "shop")["items"]
    assert [(p["branch"], p["app"], p["release"]) for p in listed] == [("feature/x", "feature-x--shop", "v1")]
    info = box.json("apps:info", "feature-x--shop")
    assert (info["environment"], info["project"]) == ("preview", "feature-x--shop")

    # Config vars of its own stay; the next push makes the next release.
    ok(box, "config:set", "feature-x--shop", "OPEN=own")
    repository.commit(answering("better"))
    assert box.push(repository, "shop", "feature/x").status == 0
    assert box.get("feature-x--shop").text == "better own -"

    # Another branch of the same name in the app's own language, and then one too many.
    assert box.push(repository, "shop", "feature/x:feature-x").status == 0
    assert len(box.json("previews", "shop")["items"]) == 2
    refused = box.push(repository, "shop", "feature/x:third")
    assert refused.status != 0 and "has 2 previews already" in refused.all and "previews:destroy shop" in refused.all

    assert box.push(repository, "shop", ":feature/x").status == 0
    assert box.ssh("apps:info", "feature-x--shop").status == 1
    assert box.get("feature-x--shop").status == 404
    ok(box, "previews:destroy", "shop", "feature-x")
    assert box.json("previews", "shop")["items"] == []
    missing = box.ssh("previews:destroy", "shop", "nothing")
    assert missing.status == 1 and "previews shop" in missing.err
    box.settles()


def test_a_preview_that_fails_is_rejected_and_the_app_is_not_touched(box: Box, repository: Repository) -> None:
    ok(box, "previews:enable", "shop")
    repository.commit(app("sys.exit(1)"))
    refused = box.push(repository, "shop", "HEAD:broken")
    assert refused.status != 0 and "exited with status 1" in refused.all
    assert box.get("shop").text == "main 1 2"
    ok(box, "previews:destroy", "shop", "broken")


def test_a_preview_expires(box: Box, repository: Repository) -> None:
    ok(box, "previews:enable", "shop", "--ttl", "60s")
    repository.commit(answering("short"))
    assert box.push(repository, "shop", "HEAD:short").status == 0
    assert box.get("short--shop").text == "short 1 -"
    job = next(j for j in box.json("jobs", "--queue", "cleanup") if j["type"] == "preview.expire")
    ok(box, "jobs:retry", str(job["id"]))  # runs it before its time
    assert box.get("short--shop").status == 200, "its time has not come"
    waiting = [j for j in box.json("jobs", "--queue", "cleanup") if j["type"] == "preview.expire"]
    assert "queued" in {j["status"] for j in waiting}, "and is waited for"
    with contextlib.closing(sqlite3.connect(box.data / "state.db")) as database, database:
        database.execute("UPDATE previews SET expires_at = 0 WHERE branch = 'short'")
    ok(box, "jobs:retry", str(next(j["id"] for j in waiting if j["status"] == "queued")))
    eventually(lambda: box.json("previews", "shop")["items"] == [])
    eventually(lambda: box.get("short--shop").status == 404)
    assert box.push(repository, "shop", "HEAD:other").status == 0


def test_a_preview_runs_the_schedule_of_its_branch_and_nothing_that_was_added_to_its_app(
    box: Box, repository: Repository
) -> None:
    ok(box, "previews:enable", "shop", "--limit", "9")
    ok(box, "cron:add", "shop", "@daily", "echo of-the-app")
    try:
        schedule = [{"command": "echo of-the-branch", "schedule": "@daily"}]
        repository.commit(answering("timed") | {"app.json": json.dumps({"cron": schedule})})
        assert box.push(repository, "shop", "HEAD:timed").status == 0
        commands = eventually(lambda: [entry["command"] for entry in box.json("cron:list", "timed--shop")])
        assert commands == ["echo of-the-branch"]
        assert [entry["command"] for entry in box.json("cron:list", "shop")] == ["echo of-the-app"]
    finally:
        ok(box, "previews:destroy", "shop", "timed")
        ok(box, "cron:remove", "shop", str(box.json("cron:list", "shop")[0]["number"]))


def test_a_preview_lets_in_nobody_whom_its_app_keeps_out(box: Box, repository: Repository) -> None:
    ok(box, "previews:enable", "shop", "--limit", "9")
    assert box.ssh("tls:set", "shop", "client-ca", stdin=Authority.new().pem).status == 0
    ok(box, "tls:set", "shop", "automatic", "on")
    try:
        assert box.push(repository, "shop", "main:closed").status == 0
        assert box.get("closed--shop").status == 308
        assert "ssl_verify_client on" in ok(box, "nginx:show-config", "closed--shop")
        assert box.json("tls:report", "closed--shop")["automatic"]["value"] == "", "asked for the app alone"
    finally:
        ok(box, "tls:set", "shop", "client-ca", "''")
        ok(box, "tls:set", "shop", "automatic")
        box.ssh("previews:destroy", "shop", "closed", "--force")


def test_destroying_an_app_destroys_its_previews(box: Box, repository: Repository) -> None:
    assert box.json("previews", "shop")["items"]
    ok(box, "apps:destroy", "shop", "--force")
    assert box.json("apps:list") == []
    box.settles()
    eventually(lambda: box.containers() == [])


def test_names_of_previews_cannot_be_chosen(box: Box) -> None:
    for words in (("apps:create", "x--shop"), ("pipelines:create", "x--y")):
        refused = box.ssh(*words)
        assert refused.status == 1 and "single hyphens" in refused.err
