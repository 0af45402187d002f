"""Quotas on a whole box: what is refused, what is told, and that nothing running is ever touched."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.apps import app
from tests.box import Box, eventually

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    settings = (
        "drain = 0.5\nstream_drain = 0.5\nstop_timeout = 2\nautoscale_interval = 0.5\nmemory = 67108864\ncpus = 0.2\n"
    )
    box = Box(f"[run]\n{settings}").start()
    yield box
    box.close()


def ok(box: Box, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 0, (words, done.all)
    return done.out


def refused(box: Box, said: str, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 1 and said in done.err, (words, done.all)
    return done.err


def live(box: Box, name: str) -> int:
    return sum(i["duty"] == "live" for i in box.json("ps:report", name)["instances"])


def used(box: Box, key: str, project: str = "") -> float:
    scope = box.json("quota:report", *(["--project", project] if project else ["--org"]))[0]
    return float(scope["quotas"][key]["used"])


def test_a_push_that_would_go_over_is_rejected_and_the_old_release_serves(box: Box) -> None:
    ok(box, "quota:set", "--project", "blog", "memory=192m", "apps=1")
    repository = box.repository(app(body="one"))
    done = box.push(repository, "blog")
    assert done.status == 0 and "quota" not in done.all, done.all
    ok(box, "ps:scale", "blog", "web=3")
    assert used(box, "memory", "blog") == 192 * 1024**2
    said = refused(box, "the quota memory of project blog is 192 MiB; 192 MiB are used", "ps:scale", "blog", "web=4")
    assert "64 MiB more" in said and "quota:set --project blog memory=256m" in said
    refused(box, "quota memory", "resource:limit", "blog", "--memory", "65m")
    refused(box, "quota apps of project blog is 1", "apps:create", "second", "--project", "blog")
    # The deploy is in place of what runs, so it fits; the line tells how near it is.
    repository.commit(app(body="two"))
    done = box.push(repository, "blog")
    assert done.status == 0, done.all
    assert "project blog uses 192 MiB of its quota memory of 192 MiB (100 %)" in done.all
    told = [(e["type"], e["data"]["quota"]) for e in box.json("events", "blog") if e["type"] == "quota.reached"]
    assert told == [("quota.reached", "apps"), ("quota.reached", "memory")]
    # One more process type does not.
    ok(box, "ps:scale", "blog", "worker=1")
    repository.commit(app(body="three", Procfile="web: python3 -u app.py\nworker: sleep 1000\n"))
    done = box.push(repository, "blog")
    assert done.status != 0 and "quota memory of project blog is 192 MiB" in done.all, done.all
    assert box.get("blog").text == "two" and live(box, "blog") == 3
    assert "USED UP" in ok(box, "quota:report")


def test_a_quota_below_what_runs_stops_nothing(box: Box) -> None:
    ok(box, "quota:set", "--project", "blog", "memory=64m")
    ok(box, "ps:restart", "blog")
    ok(box, "config:set", "blog", "A=1")
    assert live(box, "blog") == 3
    refused(box, "quota memory", "ps:scale", "blog", "web=4")
    ok(box, "ps:scale", "blog", "web=2", "worker=0")
    assert live(box, "blog") == 2
    ok(box, "ps:stop", "blog")
    assert used(box, "memory", "blog") == 0
    refused(box, "quota memory", "ps:start", "blog")
    ok(box, "quota:unset", "--project", "blog", "memory")
    ok(box, "ps:start", "blog")
    eventually(lambda: box.get("blog").text == "two")


def test_two_pushes_at_once_cannot_both_get_the_last_of_it(box: Box) -> None:
    ok(box, "quota:set", "--org", f"memory={3 * 64}m")
    pushes = [box.begin_push(box.repository(app(body=name)), name) for name in ("left", "right")]
    results = [(push.communicate(timeout=120)[0], push.returncode) for push in pushes]
    assert sorted(status == 0 for _, status in results) == [False, True], results
    assert "quota memory of the organization is 192 MiB" in next(out for out, status in results if status)
    assert used(box, "memory") == 192 * 1024**2
    ok(box, "quota:unset", "--org", "memory")


def test_autoscaling_takes_what_is_left_and_says_why_not_more(box: Box) -> None:
    ok(box, "ps:scale", "blog", "web=1")
    ok(box, "quota:set", "--project", "blog", "memory=128m")
    ok(box, "autoscale:set", "blog", "web", "min=3", "max=4", "cpu=90")
    event = eventually(lambda: [e for e in box.json("events", "blog") if e["type"] == "app.autoscaled"], 40)[0]
    assert (event["data"]["before"], event["data"]["after"]) == (1, 2)
    assert "3 are too many: the quota memory of project blog is 128 MiB" in event["data"]["reason"]
    failed = eventually(lambda: [e for e in box.json("events", "blog") if e["type"] == "app.autoscale_failed"], 40)[0]
    assert "quota memory of project blog is 128 MiB" in failed["data"]["reason"]
    assert live(box, "blog") == 2
    ok(box, "autoscale:unset", "blog")
    ok(box, "quota:unset", "--project", "blog", "memory")


def test_previews_builds_and_the_disk(box: Box) -> None:
    ok(box, "previews:enable", "blog")
    ok(box, "quota:set", "--org", f"apps={len(box.json('apps:list'))}", "builds-per-hour=1000")
    repository = box.repository(app())
    done = box.push(repository, "blog", "main:feature")
    assert done.status != 0 and "quota apps of the organization" in done.all, done.all
    ok(box, "quota:unset", "--org", "apps")
    ok(box, "quota:set", "--org", f"builds-per-hour={round(used(box, 'builds-per-hour'))}")
    done = box.push(repository, "more")
    assert done.status != 0 and "quota builds-per-hour of the organization" in done.all, done.all
    ok(box, "quota:set", "--org", "builds-per-hour=1000", "disk=8m")
    eventually(lambda: used(box, "disk") > 8 * 1024**2, 60)
    assert {e["type"] for e in box.json("events") if e["data"].get("quota") == "disk"} == {"quota.reached"}
    refused(box, "and this writes more", "storage:create", "photos", "--app", "blog")
    done = box.push(repository, "more")
    assert done.status != 0 and "quota disk of the organization is 8 MiB" in done.all, done.all
    told = json.loads(ok(box, "quota:report", "--json"))
    assert {scope["project"] for scope in told} >= {None, "blog"}
    refused(box, "either --org or --project", "quota:set", "--org", "--project", "blog", "apps=1")
    refused(box, "there is no quota 'disks'", "quota:set", "disks=1g")
    box.settles()
