"""The grammar of health checks, and what a check means when little is said."""

from __future__ import annotations

import ipaddress
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paasd.check_grammar import CheckType, check_settings, parse_all
from paasd.checks import Check, checks_of, laid_over, merged, misfits
from paasd.errors import InvalidInput
from paasd.health_subjects import Subject, Watched
from paasd.liveness import pause_before
from paasd.outbound import may_reach
from paasd.run.instances import InstanceRow
from paasd.run.probe import Answer
from paasd.run.readiness import Readiness

STARTUP, LIVENESS, READINESS = CheckType


def of(listed: list[dict[str, Any]], kind: CheckType = STARTUP, process_type: str = "web") -> list[Check]:
    return checks_of(listed, kind, process_type, 5000)


def test_without_any_word_a_web_instance_must_answer_and_others_stay_up() -> None:
    assert of([]) == [Check(answer=True, port=5000)]
    assert of([], process_type="worker") == [Check(uptime=3.0)]
    assert of([], LIVENESS) == of([], READINESS) == []


def test_all_startup_checks_of_a_type_count() -> None:
    found = of([{"path": "/a"}, {"type": "startup", "path": "/b", "port": 9000}, {"type": "liveness", "path": "/c"}])
    assert [(check.path, check.port) for check in found] == [("/a", 5000), ("/b", 9000)]


@pytest.mark.parametrize("only", [{"uptime": 2}, {"command": ["true"]}, {"path": "/", "warn": True}])
def test_a_web_instance_must_answer_whatever_else_is_checked(only: dict[str, Any]) -> None:
    assert any(check.answer for check in of([only]))


def test_every_setting_reaches_the_check() -> None:
    headers = [{"name": "X-A", "value": "1"}]
    numbers = {"port": 81, "attempts": 7, "wait": 1.5, "timeout": 2, "initialDelay": 3, "uptime": 4}
    entry = {"path": "/x", "content": "ok", "scheme": "https", "httpHeaders": headers, "name": "n", "warn": True}
    more = {"status": "204, 3XX", "successes": 8}
    known = Check(
        READINESS, "n", "/x", "ok", "https", (("X-A", "1"),), (), False, False, 81, 4.0, 7, 1.5, 2.0, 3.0, True
    )
    assert of([{"type": "readiness", **entry, **numbers, **more}], READINESS) == [
        replace(known, statuses=("204", "3xx"), successes=8)
    ]
    assert of([{"type": "liveness", "listening": True}], LIVENESS)[0].listening
    assert of([{"type": "liveness", "command": ["test", "-e", "/x"]}], LIVENESS, "worker")[0].what.endswith("-e /x")


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "checks must map"),
        ({"web": {}}, "checks must map"),
        ({"web": ["x"]}, r"checks.web\[0\] must be an object"),
        ({"web": [{}] * 21}, "checks.web has 21 checks"),
        ({"web": [{}, {"type": "alive"}]}, r"checks.web\[1\].type"),
        ({"web": [{"path": "up"}]}, r"checks.web\[0\].path"),
        ({"web": [{"path": "/a b"}]}, r"checks.web\[0\].path"),
        ({"web": [{"path": "/", "listening": True}]}, "listening excludes path|path excludes listening"),
        ({"web": [{"command": "true"}]}, r"checks.web\[0\].command"),
        ({"web": [{"command": []}]}, r"checks.web\[0\].command"),
        ({"web": [{"command": ["a\0"]}]}, r"checks.web\[0\].command"),
        ({"web": [{"scheme": "ftp"}]}, r"checks.web\[0\].scheme"),
        ({"web": [{"httpHeaders": [{"name": "A: b", "value": ""}]}]}, r"checks.web\[0\].httpHeaders"),
        ({"web": [{"httpHeaders": [{"name": "A", "value": "x\ny"}]}]}, r"checks.web\[0\].httpHeaders"),
        ({"web": [{"listening": "yes"}]}, r"checks.web\[0\].listening"),
        ({"web": [{"wait": float("nan")}]}, r"checks.web\[0\].wait"),
        ({"web": [{"attempts": 1.5}]}, r"checks.web\[0\].attempts"),
        ({"web": [{"port": 0}]}, r"checks.web\[0\].port"),
        *(
            ({"web": [{"path": "/", "status": status}]}, r"checks.web\[0\].status must be a status from 200 to 599")
            for status in (
                "",
                "20",
                "2000",
                99,
                199,
                600,
                "2x",
                "200-299",
                "xxx",
                "200;204",
                True,
                [200],
                204.0,
                "204 ",
            )
        ),
        ({"web": [{"path": "/", "status": " ".join(["200"] * 21)}]}, r"checks.web\[0\].status"),
        ({"web": [{"command": ["x"], "status": 204}]}, r"checks.web\[0\].status is for checks with a path"),
        ({"web": [{"listening": True, "status": 204}]}, r"checks.web\[0\].status is for checks with a path"),
        *(({"web": [{"successes": n}]}, r"checks.web\[0\].successes") for n in (0, -1, 1.5, 1001, "3", True)),
        ({"web": [{"warn": 1}]}, r"checks.web\[0\].warn"),
        ({"web": [{"onFailure": {}}]}, r"checks.web\[0\].onFailure"),
        ({"web": [{"onFailure": {"url": "file:///etc/passwd"}}]}, r"checks.web\[0\].onFailure"),
        ({"web": [{"onFailure": {"url": "https://a b"}}]}, r"checks.web\[0\].onFailure"),
        ({"web": [{"onFailure": {"command": "rm"}}]}, r"checks.web\[0\].onFailure"),
        ({"web": [{"onFailure": {"mail": "me"}}]}, r"checks.web\[0\].onFailure"),
        ({"web": [{"command": ["x"], "content": "y"}]}, r"checks.web\[0\].content"),
        ({"worker": [{"type": "readiness", "wait": 1}]}, r"checks.worker\[0\] does not say what"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(document: Any, place: str) -> None:
    with pytest.raises(InvalidInput, match=place):
        parse_all(document, "checks")


def test_what_is_not_done_is_told() -> None:
    alive = {"type": "liveness", "path": "/", "uptime": 9, "successes": 2}
    found, unused = parse_all({"web": [{"path": "/", "description": "x"}, alive]}, "checks")
    assert found == {"web": [{"path": "/"}, {"type": "liveness", "path": "/"}]}
    assert unused[0] == "checks.web[0].description" and unused[1].startswith("checks.web[1].uptime")
    assert unused[2].startswith("checks.web[1].successes")


@pytest.mark.parametrize(
    ("status", "taken", "refused", "expected"),
    [
        (None, (200, 204, 302, 399), (199, 400, 503), "200 to 399"),
        (204, (204,), (200, 304, 404), "204"),
        ("204", (204,), (200,), "204"),
        ("2xx", (200, 299), (300, 199, 404), "2xx"),
        ("2XX,404  301", (200, 404, 301), (300, 403), "2xx or 404 or 301"),
        ("503 503", (503,), (200,), "503"),
    ],
)
def test_expected_statuses(
    status: str | int | None, taken: tuple[int, ...], refused: tuple[int, ...], expected: str
) -> None:
    found, _ = parse_all({"web": [{"path": "/", "status": status}]}, "checks")
    check = of(found["web"])[0]
    assert all(map(check.takes, taken)) and not any(map(check.takes, refused)) and check.expected == expected


def test_an_expected_status_needs_a_request() -> None:
    assert of([{"status": 204}]) == [Check(path="/", port=5000, statuses=("204",))]
    assert of([{"status": 204}], process_type="worker")[0].path == "/"
    assert parse_all({"worker": [{"type": "readiness", "status": 204}]}, "checks")[1] == []
    assert laid_over({"path": "/", "status": 204, "wait": 1}, {"listening": True}) == {"listening": True, "wait": 1}
    same, other = of([{"path": "/", "status": 204}])[0], of([{"path": "/"}])[0]
    assert same.question != other.question, "one answer does not do for both"


def test_how_often_a_check_must_pass() -> None:
    entry = {"path": "/"}
    assert [of([{"type": str(kind), **entry}], kind)[0].successes for kind in CheckType] == [1, 1, 3]
    assert [of([{"type": str(kind), **entry, "successes": 5}], kind)[0].successes for kind in CheckType] == [5, 1, 5]


def test_what_a_failure_sets_off_reaches_the_check() -> None:
    entry = {"path": "/", "onFailure": {"command": ["notify", "me"], "url": "https://example.org/x"}}
    check = of(parse_all({"web": [entry]}, "checks")[0]["web"])[0]
    assert (check.on_failure_command, check.on_failure_url) == (("notify", "me"), "https://example.org/x")


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("93.184.215.14", True),
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("10.201.3.4", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("224.0.0.1", False),
        ("64:ff9b::169.254.169.254", False),
        ("64:ff9b::93.184.215.14", True),
        ("2002:a9fe:a9fe::1", False),
        ("::169.254.169.254", False),
        ("fec0::1", False),
        ("2606:2800:220:1::1", True),
        ("0.0.0.0", False),
    ],
)
def test_only_public_and_allowed_addresses_are_reached(address: str, reached: bool) -> None:
    assert may_reach(ipaddress.ip_address(address), "10.201.0.0/16", "10.0.0.0/8") is reached


def test_checks_set_changes_the_first_of_its_type() -> None:
    ours = {"web": [{"type": "liveness", "path": "/l"}, {"path": "/a", "wait": 1}, {"path": "/b"}]}
    said = {"web": {"startup": {"wait": 9}, "readiness": {"path": "/r"}}, "worker": {"startup": {"uptime": 1}}}
    assert merged(ours, said) == {
        "web": [
            {"type": "liveness", "path": "/l"},
            {"path": "/a", "wait": 9},
            {"path": "/b"},
            {"type": "readiness", "path": "/r"},
        ],
        "worker": [{"type": "startup", "uptime": 1}],
    }


def test_another_strategy_takes_the_place_of_the_first() -> None:
    base = {"path": "/", "content": "x", "wait": 1}
    assert laid_over(base, {"command": ["true"]}) == {"command": ["true"], "wait": 1}
    assert laid_over({"listening": True}, {"path": "/"}) == {"path": "/"}
    assert laid_over(base, {"path": None}) == {"path": None, "content": "x", "wait": 1}


@pytest.mark.parametrize("ours", [{"command": ["true"]}, {"listening": True}])
def test_what_an_answer_must_be_takes_no_check_away_that_has_none(ours: dict[str, Any]) -> None:
    base = {"type": "readiness", **ours, "wait": 1}
    over = {"status": "204", "content": "x", "successes": 5}
    assert misfits([{"path": "/"}, base], READINESS, over) == ["status", "content"]
    assert merged({"web": [base]}, {"web": {"readiness": over}})["web"] == [{**base, "successes": 5}]
    (check,) = of(merged({"web": [base]}, {"web": {"readiness": over}})["web"], READINESS)
    assert (check.command or check.listening) and check.successes == 5
    with_path = {**over, "path": "/ready"}
    assert misfits([base], READINESS, with_path) == []
    assert of(merged({"web": [base]}, {"web": {"readiness": with_path}})["web"], READINESS)[0].statuses == ("204",)


def test_switched_off_checks_are_not_asked() -> None:
    ours = {"web": [{"path": "/a"}, {"type": "liveness", "path": "/l"}, {"type": "readiness", "path": "/r"}]}
    some = merged(ours, {"web": {"off": ["liveness"]}})["web"]
    assert of(some, LIVENESS) == [] and of(some, READINESS) and of(some)[0].path == "/a"
    everything = merged(ours, {"*": {"off": ["liveness", "readiness", "startup"]}})["web"]
    assert of(everything) == [Check(uptime=3.0)] and of(everything, READINESS) == []
    assert of(merged({}, {"*": {"off": ["startup"]}})["web"]) == [Check(uptime=3.0)]


def test_what_an_old_release_holds_and_makes_no_sense_is_left_out() -> None:
    assert of([{"command": "true"}, {"httpHeaders": "x"}, {"path": "/ok"}]) == [Check(path="/ok", port=5000)]
    assert of([{"command": "true"}]) == [Check(answer=True, port=5000)]


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown check setting"):
        check_settings({"colour": 1})


def row(name: str) -> InstanceRow:
    return InstanceRow(name, "a", "p", "r", None, "web", 1, "10.0.0.2", "live", None)


def test_the_unready_get_no_requests_unless_nobody_is_ready() -> None:
    readiness, rows = Readiness(), [row("one"), row("two")]
    assert readiness.mark("one", False) and not readiness.mark("one", False)
    assert [r.name for r in readiness.serving(rows)] == ["two"]
    readiness.mark("two", False)
    assert readiness.serving(rows) == rows
    readiness.forget_others(["one"])
    assert [r.name for r in readiness.serving(rows)] == ["two"]


BAD, GOOD = Answer(False, "no"), Answer(True, "yes")


def watched_by(check: Check) -> Watched:
    return Watched(Subject(None, row("one"), (check,), ""), check, 0.0)  # type: ignore[arg-type]


def test_a_check_fails_after_its_attempts_and_passes_at_once() -> None:
    watched = watched_by(Check(LIVENESS, path="/", attempts=3))
    assert [watched.note(answer) for answer in (BAD, BAD, GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD)] == [
        *(False, False, False, False, False, True, False, True, False),
    ]


def test_a_check_that_failed_passes_after_its_successes_in_a_row() -> None:
    watched = watched_by(Check(READINESS, path="/", attempts=2, successes=3))
    states = []
    for answer in (GOOD, BAD, BAD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD, BAD, GOOD):
        watched.note(answer)
        states.append(watched.state)
    assert states == [
        *("passing", "1 of 2 attempts failed", "failing"),
        *("failing, 1 of 3 successes seen", "failing, 2 of 3 successes seen", "failing"),
        *("failing, 1 of 3 successes seen", "failing, 2 of 3 successes seen", "passing"),
        *("1 of 2 attempts failed", "passing"),
    ]
    watched.note(BAD), watched.note(BAD), watched.note(GOOD), watched.begin_anew()
    assert watched.state == "passing" and watched.successes == 0


def test_failures_while_the_release_is_changed_do_not_count() -> None:
    check = Check(LIVENESS, path="/", attempts=1)
    watched = Watched(Subject(None, row("one"), (check,), ""), check, 0.0)  # type: ignore[arg-type]
    assert not watched.note(Answer(False, "no"), counts=False) and not watched.failing
    assert watched.note(Answer(False, "no")) and watched.note(Answer(True, "yes"), counts=False)


def test_restarts_come_with_growing_pauses() -> None:
    assert [pause_before(n) for n in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_what_was_set_before_there_were_types_is_of_startup_checks() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE apps (checks TEXT)")
    old = '{"web":{"path":"/up","wait":2},"worker":{"uptime":1}}'
    database.executemany("INSERT INTO apps VALUES (?)", [("{}",), (old,)])
    database.executescript(Path("paasd/migrations/0008_checks.sql").read_text())
    assert [text for (text,) in database.execute("SELECT checks FROM apps ORDER BY rowid")] == [
        "{}",
        '{"web":{"startup":{"path":"/up","wait":2}},"worker":{"startup":{"uptime":1}}}',
    ]
    database.close()
