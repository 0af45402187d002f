"""When schedules are due, through the changes of clocks."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from paasd.schedules import Schedule, checked, checked_zone

BERLIN = "Europe/Berlin"


def times(text: str, start: str, count: int, zone: str = BERLIN) -> list[str]:
    at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = []
    for _ in range(count):
        following = Schedule(text, zone).after(at)
        assert following is not None and following > at
        found.append(datetime.fromtimestamp(at := following, ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("text", "usual"),
    [("0  3 * * *", "0 3 * * *"), (" @Daily ", "@daily"), ("*/5 8-17 * * mon-fri", "*/5 8-17 * * mon-fri")],
)
def test_schedules_are_kept_in_their_usual_form(text: str, usual: str) -> None:
    assert checked(text) == usual == checked(usual)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "often",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 30 2 *",
        "@reboot",
        "@",
        "a b c d e",
        "*" * 999,
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="five cron fields or a name"):
        checked(text)


@pytest.mark.parametrize("name", ["", "Nowhere", "../etc/passwd", "/etc/localtime", "Europe", "a\0b"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a time zone such as"):
        checked_zone(name)


def test_names_stand_for_fields() -> None:
    assert times("@weekly", "2026-01-01T00:00", 2, "UTC") == ["2026-01-04T00:00+00:00", "2026-01-11T00:00+00:00"]
    assert times("@yearly", "2026-01-01T00:00", 1, "UTC") == ["2027-01-01T00:00+00:00"]
    assert times("@hourly", "2026-01-01T00:30", 1, "UTC") == ["2026-01-01T01:00+00:00"]


def test_a_time_that_does_not_exist_comes_right_after() -> None:
    assert times("30 2 * * *", "2026-03-28T12:00", 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]


def test_a_time_that_comes_twice_counts_once() -> None:
    assert times("30 2 * * *", "2026-10-24T12:00", 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


def test_hours_that_come_twice_are_hours() -> None:
    assert times("30 * * * *", "2026-10-25T01:45", 3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]


def test_a_schedule_follows_its_own_zone() -> None:
    assert times("0 3 * * *", "2026-06-01T00:00", 1, "Asia/Tokyo") == ["2026-06-01T03:00+09:00"]


def test_times_are_counted_to_a_limit() -> None:
    schedule = Schedule("* * * * *")
    assert schedule.count(0, 59.9) == 0
    assert schedule.count(0, 60) == 1
    assert schedule.count(0, 3600) == 60
    assert schedule.count(0, 1e9, most=50) == 50
