"""Commands on a schedule: when they run, how that is told, and what a daemon that dies leaves of them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.apps import app as small_app
from tests.box import Box, Repository, eventually

pytestmark = pytest.mark.engine

# Jobs are looked for every second, so that a time that a test sets behind the daemon's back is noticed.
SETTINGS = "[jobs]\nlease = 3.0\n"
NIGHTLY, HOURLY = (
    {"command": "echo nightly", "schedule": "0 3 * * *"},
    {"command": "echo hourly", "schedule": "@hourly"},
)


def files(*entries: dict[str, str]) -> dict[str, str]:
    return small_app(app__json=json.dumps({"cron": list(entries)}))


@pytest.fixture(scope="module")
def cron_box() -> Iterator[Box]:
    box = Box(SETTINGS)
    try:
        yield box.start()
    finally:
        box.close()


@pytest.fixture(scope="module")
def repository(cron_box: Box) -> Repository:
    return cron_box.repository(files(NIGHTLY, HOURLY))


@pytest.fixture(scope="module")
def app(cron_box: Box, repository: Repository) -> str:
    done = cron_box.push(repository, "clock")
    assert done.status == 0, done
    return "clock"


def ok(box: Box, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 0, (words, done)
    return done.out


def entries(box: Box, app: str) -> dict[int, dict[str, Any]]:
    return {entry["number"]: entry for entry in box.json("cron:list", app)}


def add(box: Box, app: str, script: str, *options: str, schedule: str = "@yearly") -> int:
    done = box.local("cron:add", *options, app, schedule, script)
    assert done.status == 0, done
    return max(entries(box, app))


def make_due(box: Box, app: str, number: int, ago: float = 0.0) -> None:
    """Set the time of an entry and of its job, as if it were due now, or had been a while ago."""
    with sqlite3.connect(box.data / "state.db", timeout=10) as database:
        (id,) = database.execute(
            "SELECT e.id FROM cron_entries e JOIN apps a ON a.id = e.app_id WHERE a.name = ? AND e.number = ?",
            (app, number),
        ).fetchone()
        at = time.time() - ago
        database.execute("UPDATE cron_entries SET next_at = ? WHERE id = ?", (at, id))
        changed = database.execute("UPDATE jobs SET run_at = ? WHERE key = ? AND status = 'queued'", (at, id)).rowcount
    database.close()
    assert changed == 1


def history(box: Box, app: str, number: int, count: int = 1) -> list[dict[str, Any]]:
    """Runs of an entry, newest first, once there are `count` of them and none is under way."""

    def all_ended() -> list[dict[str, Any]]:
        found = box.api("GET", f"/apps/{app}/cron/{number}/runs")["items"]
        return found if len(found) >= count and all(run["status"] != "running" for run in found) else []

    return list(eventually(all_ended))


def under_way(box: Box, app: str, number: int) -> list[dict[str, Any]]:
    found = box.api("GET", f"/apps/{app}/cron/{number}/runs")["items"]
    return [run for run in found if run["status"] == "running"]


def one_offs_running(box: Box) -> list[str]:
    """As the engine knows them, for when there is no daemon to ask."""
    found = [c for c in box.containers() if c["Labels"].get("paasd.role") == "one-off"]
    return [c["Id"] for c in found if c["State"] == "running"]


def event_types(box: Box, app: str, number: int) -> list[str]:
    found = box.api("GET", f"/events?app={app}&limit=200")["items"]
    return [e["type"] for e in found if e["type"].startswith("cron.") and e["data"].get("entry") == number]


def test_entries_of_app_json_follow_the_live_release(cron_box: Box, repository: Repository, app: str) -> None:
    box = cron_box
    first = {e["command"]: e for e in entries(box, app).values() if e["origin"] == "app.json"}
    assert first.keys() == {"echo nightly", "echo hourly"}
    assert first["echo nightly"]["next_at"].endswith("T03:00:00.000+00:00")
    ok(box, "cron:suspend", app, str(first["echo hourly"]["number"]))
    weekly = {"command": "echo weekly", "schedule": "@weekly", "timezone": "Asia/Tokyo", "concurrency_policy": "forbid"}
    repository.commit(files(HOURLY, weekly))
    assert box.push(repository, app).status == 0
    second = {e["command"]: e for e in entries(box, app).values() if e["origin"] == "app.json"}
    assert second.keys() == {"echo hourly", "echo weekly"}
    assert second["echo hourly"]["number"] == first["echo hourly"]["number"]
    assert second["echo hourly"]["suspended"] and second["echo hourly"]["next_at"] is None
    assert (second["echo weekly"]["timezone"], second["echo weekly"]["concurrency"]) == ("Asia/Tokyo", "forbid")
    assert second["echo weekly"]["number"] > max(e["number"] for e in first.values())
    assert second["echo weekly"]["next_at"].endswith("T15:00:00.000+00:00")
    refused = box.ssh("cron:remove", app, str(second["echo weekly"]["number"]))
    assert "is in the app.json" in refused.err and "cron:suspend" in refused.err
    ok(box, "rollback", app)
    assert {e["command"] for e in entries(box, app).values()} == {"echo hourly", "echo nightly"}


def test_a_clone_has_the_entries_too_and_numbers_of_its_own(cron_box: Box, app: str) -> None:
    box = cron_box
    daily = add(box, app, "echo daily", "--timezone", "Asia/Tokyo", "--concurrency", "forbid")
    paused = add(box, app, "echo paused")
    ok(box, "cron:suspend", app, str(paused))
    try:
        ok(box, "apps:clone", app, "clock-two")
        copied = eventually(lambda: found if len(found := entries(box, "clock-two")) == 4 else {})
        assert sorted(copied) == [1, 2, 3, 4]
        mine = {e["command"]: e for e in entries(box, app).values()}
        for command in ("echo daily", "echo paused"):
            (copy,) = (e for e in copied.values() if e["command"] == command)
            facts = ("schedule", "timezone", "concurrency", "origin", "suspended", "next_at")
            assert {k: copy[k] for k in facts} == {k: mine[command][k] for k in facts}
        assert {e["command"] for e in copied.values() if e["origin"] == "app.json"} == {"echo hourly", "echo nightly"}
        ok(box, "cron:run", "clock-two", str(min(copied)))
        assert history(box, "clock-two", min(copied))[0]["status"] == "succeeded"
    finally:
        box.ssh("apps:destroy", "clock-two", "--force")
        for number in (daily, paused):
            ok(box, "cron:remove", app, str(number))


def test_a_schedule_that_is_none_rejects_the_push(cron_box: Box, app: str) -> None:
    done = cron_box.push(cron_box.repository(files({"command": "x", "schedule": "61 * * * *"})), "wrong")
    assert done.status != 0
    assert "'61 * * * *' is no schedule" in done.all


def test_entries_are_added_with_and_without_quotes_and_removed(cron_box: Box, app: str) -> None:
    box = cron_box
    before = set(entries(box, app))
    ok(box, "cron:add", "--timezone", "Europe/Berlin", app, "0 4 * * *", "echo", "'a b'")
    (number,) = set(entries(box, app)) - before
    added = entries(box, app)[number]
    assert (added["schedule"], added["command"], added["origin"]) == ("0 4 * * *", "echo 'a b'", "cron:add")
    assert added["timezone"] == "Europe/Berlin"
    assert "echo 'a b'" in ok(box, "cron:list", app)
    ok(box, "cron:remove", app, str(number))
    assert set(entries(box, app)) == before
    assert add(box, app, "true") > number
    for words, reason in [
        (("0 0 30 2 *", "x"), "the schedule must be five cron fields"),
        (("@daily",), "a schedule and a command are needed"),
        (("--timezone", "Nowhere", "@daily", "x"), "the timezone must be"),
    ]:
        options, rest = (words[:2], words[2:]) if words[0].startswith("--") else ((), words)
        done = box.local("cron:add", *options, app, *rest)
        assert done.status == 1 and reason in done.err, done


def test_a_due_command_runs_once_and_is_remembered(cron_box: Box, app: str) -> None:
    box = cron_box
    number = add(box, app, "echo out of $DYNO; echo err >&2; exit 5")
    make_due(box, app, number)
    (run,) = history(box, app, number)
    assert (run["status"], run["exit_code"], run["kind"], run["created_by"]) == ("failed", 5, "cron", "paasd")
    assert run["due_at"] and run["release"]
    wanted = {f"out of cron.{run['number']}", "err"}
    assert set(ok(box, "cron:log", app, str(number)).splitlines()) == wanted
    assert set(ok(box, "run:logs", app, str(run["number"])).splitlines()) == wanted
    assert "failed (5)" in ok(box, "cron:history", app, str(number))
    assert entries(box, app)[number]["last"]["status"] == "failed"
    assert entries(box, app)[number]["next_at"] > run["created_at"]
    eventually(lambda: event_types(box, app, number) == ["cron.added", "cron.started", "cron.completed"])
    assert not [c for c in box.containers() if "-cron-" in c["Names"][0]]


def test_a_suspended_command_does_not_run_but_can_be_run_now(cron_box: Box, app: str) -> None:
    box = cron_box
    number = add(box, app, "echo now")
    ok(box, "cron:suspend", app, str(number))
    assert "has not run yet" in box.ssh("cron:log", app, str(number)).err
    run = box.json("cron:run", app, str(number))
    assert ok(box, "run:logs", app, str(run["number"]), "-t") == "now\n"
    assert [r["created_by"] for r in history(box, app, number)] == ["admin"]
    ok(box, "cron:resume", app, str(number))
    assert entries(box, app)[number]["next_at"]


def test_a_second_run_is_allowed_forbidden_or_replaces_the_first(cron_box: Box, app: str) -> None:
    box = cron_box
    numbers = {
        policy: add(box, app, f"echo {policy}; exec sleep 600", "--concurrency", policy)
        for policy in ("allow", "forbid", "replace")
    }
    for number in numbers.values():
        ok(box, "cron:run", app, str(number))
        make_due(box, app, number)
    eventually(lambda: len(under_way(box, app, numbers["allow"])) == 2)
    skipped, first = eventually(
        lambda: len(r := box.api("GET", f"/apps/{app}/cron/{numbers['forbid']}/runs")["items"]) == 2 and r
    )
    assert (skipped["status"], first["status"]) == ("skipped", "running")
    assert skipped["reason"] == f"run {first['number']} was still under way"
    assert "forbids two at a time" in box.ssh("cron:run", app, str(numbers["forbid"])).err
    eventually(lambda: [r["created_by"] for r in under_way(box, app, numbers["replace"])] == ["paasd"])
    new, old = box.api("GET", f"/apps/{app}/cron/{numbers['replace']}/runs")["items"]
    assert (old["status"], old["reason"]) == ("stopped", f"replaced by run {new['number']}")
    for number in numbers.values():
        for run in under_way(box, app, number):
            ok(box, "run:stop", app, str(run["number"]))
        history(box, app, number)


def test_a_stopped_app_runs_nothing(cron_box: Box, app: str) -> None:
    box = cron_box
    number = add(box, app, "true")
    ok(box, "ps:stop", app)
    make_due(box, app, number)
    (run,) = history(box, app, number)
    ok(box, "ps:start", app)
    assert (run["status"], run["reason"]) == ("skipped", "the app is stopped")
    assert "cron.skipped" in event_types(box, app, number)


def test_restarts_neither_lose_nor_repeat_runs(new_box: Callable[..., Box]) -> None:
    box = new_box(SETTINGS).start()
    assert box.push(box.repository(small_app()), "blog").status == 0
    long = add(box, "blog", "sleep 3; echo done")
    late = add(box, "blog", "echo late")
    missed = add(box, "blog", "echo missed", schedule="* * * * *")
    ok(box, "cron:run", "blog", str(long))
    box.kill()
    make_due(box, "blog", late, ago=5)
    make_due(box, "blog", missed, ago=3600)
    # Dies again when the first of them is about to be started.
    try:
        box.start(failpoint="job cron.run:kill")
    except AssertionError:
        pass
    assert box.process is not None
    box.process.wait(30)
    eventually(lambda: not one_offs_running(box))  # the long one ends while nobody sees it
    box.start()
    (run,) = history(box, "blog", long)
    assert (run["status"], run["exit_code"]) == ("succeeded", 0)
    assert box.ssh("cron:log", "blog", str(long)).out == "done\n"
    assert [r["status"] for r in history(box, "blog", late)] == ["succeeded"]
    found = history(box, "blog", missed)
    assert found[-1]["status"] == "missed"
    assert found[-1]["reason"] in [f"paasd was not running; {count} missed until now" for count in (60, 61, 62)]
    assert [r["status"] for r in found[:-1]] in ([], ["succeeded"])  # the next minute may have begun
    assert event_types(box, "blog", missed)[:2] == ["cron.added", "cron.missed"]
    box.ssh("apps:destroy", "blog", "--force")
    eventually(lambda: not box.containers())
