"""When an app may be deployed: `Mon-Fri 09:00-17:00 Europe/Berlin`, several separated by semicolons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*)\s+)?"
    r"(?P<start>\d{2}:\d{2})-(?P<end>\d{2}:\d{2})(?:\s+(?P<zone>[A-Za-z0-9_+/-]{1,64}))?",
    re.IGNORECASE,
)
_WHAT = "windows such as Mon-Fri 09:00-17:00 Europe/Berlin, separated by semicolons"


@dataclass(frozen=True)
class Window:
    days: frozenset[int]
    """0 is Monday."""
    start: time
    end: time
    """Not after `start`: on the next day."""
    zone: ZoneInfo

    def opens_on(self, day: datetime) -> tuple[datetime, datetime] | None:
        """The window that opens on this day of its zone."""
        if day.weekday() not in self.days:
            return None
        start = datetime.combine(day.date(), self.start, self.zone)
        end_day = day.date() + timedelta(days=self.end <= self.start)
        return start, datetime.combine(end_day, self.end, self.zone)


def parse(text: str) -> tuple[Window, ...]:
    """Raises ValueError saying what it must be."""
    return tuple(_window(part.strip()) for part in text.split(";") if part.strip())


def checked(text: str) -> str:
    """The text in its usual form. Raises ValueError."""
    if not parse(text):
        raise ValueError(_WHAT)
    return "; ".join(" ".join(part.split()) for part in text.split(";") if part.strip())


def opens_at(windows: tuple[Window, ...], at: datetime) -> datetime | None:
    """None when a window is open at `at` (aware), or there is none at all; else when the next one opens."""
    if not windows:
        return None
    coming = []
    for window in windows:
        today = at.astimezone(window.zone)
        for days in range(-1, 9):
            span = window.opens_on(today + timedelta(days=days))
            if span is None:
                continue
            if span[0] <= at < span[1]:
                return None
            if span[0] > at:
                coming.append(span[0])
    return min(coming)


def _window(text: str) -> Window:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(_WHAT)
    try:
        start, end = time.fromisoformat(found["start"]), time.fromisoformat(found["end"])
        zone = ZoneInfo(found["zone"] or "UTC")
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise ValueError(_WHAT) from None
    return Window(_days(found["days"]), start, end, zone)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(_WHAT)
        start, end = _DAYS.index(first), _DAYS.index(last or first)
        found |= {day % 7 for day in range(start, end + 1 if end >= start else end + 8)}
    return frozenset(found)
