"""When something is to run: five cron fields or a name such as `@daily`, in a time zone.

Where clocks are put forward, a time that does not exist comes right after; where they are put back, a time that comes
twice counts once, unless the schedule is by the hour or minute (as Debian's cron does it).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_WHAT = 'five cron fields or a name, such as "0 3 * * *" or @daily'
_MAX = 200


@dataclass(frozen=True)
class Schedule:
    """Its methods read files of the time zone and may look far ahead: call them in a thread."""

    text: str
    zone: str = "UTC"

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)

    def after(self, at: float) -> float | None:
        """The next time after `at`, in seconds since the epoch; None when there is none in the next 50 years."""
        return next((found.timestamp() for found in islice(self._times(at), 1)), None)

    def count(self, start: float, end: float, most: int = 1000) -> int:
        """How many times there are after `start`, up to `end` with it."""
        return sum(1 for _ in islice(takewhile(lambda found: found.timestamp() <= end, self._times(start)), most))

    def _times(self, at: float) -> CronSim:
        return CronSim(_NAMES.get(self.text, self.text), datetime.fromtimestamp(at, self._zone))


def checked(text: str) -> str:
    """A schedule in its usual form. Raises ValueError saying what it must be."""
    usual = " ".join(text.split())
    if usual.startswith("@"):
        if usual.lower() not in _NAMES:
            raise ValueError(f"{_WHAT}; the names are {' '.join(_NAMES)}")
        return usual.lower()
    if len(usual) > _MAX or len(usual.split()) != 5:
        raise ValueError(_WHAT)
    try:
        if Schedule(usual).after(0.0) is None:
            raise ValueError(f"{_WHAT}, and come at some time")
    except CronSimError as error:
        raise ValueError(f"{_WHAT} ({error})") from None
    return usual


def checked_zone(name: str) -> str:
    """Raises ValueError."""
    try:
        return ZoneInfo(name).key
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise ValueError("a time zone such as Europe/Berlin or UTC") from None
