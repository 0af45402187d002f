"""Deploy windows: what is taken, and when the next one opens."""

from __future__ import annotations

from datetime import datetime

import pytest

from paasd.deploy_windows import checked, opens_at, parse


def opens(text: str, at: str) -> str | None:
    found = opens_at(parse(text), datetime.fromisoformat(at))
    return found and found.isoformat()


@pytest.mark.parametrize(
    ("text", "at", "next_"),
    [
        ("Mon-Fri 09:00-17:00", "2026-11-23T09:00:00+00:00", None),
        ("Mon-Fri 09:00-17:00", "2026-11-23T16:59:59+00:00", None),
        ("Mon-Fri 09:00-17:00", "2026-11-23T17:00:00+00:00", "2026-11-24T09:00:00+00:00"),
        ("Mon-Fri 09:00-17:00", "2026-11-27T18:00:00+00:00", "2026-11-30T09:00:00+00:00"),
        ("mon,wed 09:00-10:00; Sat 08:00-09:00", "2026-11-25T10:00:00+00:00", "2026-11-28T08:00:00+00:00"),
        ("22:00-02:00", "2026-11-24T01:30:00+00:00", None),
        ("Fri 22:00-02:00", "2026-11-28T01:30:00+00:00", None),
        ("Fri 22:00-02:00", "2026-11-28T02:00:00+00:00", "2026-12-04T22:00:00+00:00"),
        ("Sat-Mon 00:00-00:00", "2026-11-22T12:00:00+00:00", None),
        ("09:00-17:00 Europe/Berlin", "2026-11-23T08:30:00+00:00", None),
        ("09:00-17:00 Europe/Berlin", "2026-07-01T06:59:00+00:00", "2026-07-01T09:00:00+02:00"),
        # The night in which clocks go back.
        ("Sun 01:00-04:00 Europe/Berlin", "2026-10-25T02:30:00+00:00", None),
        ("", "2026-11-23T09:00:00+00:00", None),
    ],
)
def test_when_the_next_window_opens(text: str, at: str, next_: str | None) -> None:
    assert opens(text, at) == next_


@pytest.mark.parametrize(
    "text",
    [
        *("always", "Mon 9-17", "Mon 25:00-26:00", "Xyz 09:00-10:00", "09:00-10:00 Mars/Olympus", ";", "Mon-Fri"),
        *("09:00-10:00 ../../etc/passwd", "09:00-10:00 /etc/localtime"),
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="windows such as"):
        checked(text)


def test_the_usual_form() -> None:
    assert checked("  Mon-Fri   09:00-17:00  Europe/Berlin;; Sat 10:00-12:00 ;") == (
        "Mon-Fri 09:00-17:00 Europe/Berlin; Sat 10:00-12:00"
    )
