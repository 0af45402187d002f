"""What Nginx's one error log says of an app.

Requests and referrers in it are what clients wrote, quotes and all. So a line is an app's only if all that looks like a
host name in it is the app's: nobody gets to see lines of others, nor puts lines into others' logs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from paasd.route.hosts import app_of

_HOST = re.compile(rb'host: "([^"]*)"')
_QUERY = re.compile(r'\?\S*?(?=(?:",?)?(?:\s|$))')


Since = Mapping[str, float]
"""When an app got each of its domains, and under `""` the names that it has by its own: before that they may have been
others'."""


def lines_of(app: str, live: Mapping[str, str], since: Since) -> Callable[[bytes], bool]:
    """Whether a line is of the app. `live` is the edge's table of host names."""

    def wanted(line: bytes) -> bool:
        keys = [key_of(host.decode("ascii", "replace"), live) for host in _HOST.findall(line)]
        if not keys or any(key is None or app_of(live[key]) != app for key in keys):
            return False
        return _written(line) >= max(int(since.get(key or "", since[""])) for key in keys)

    return wanted


def _written(line: bytes) -> float:
    try:
        return time.mktime(time.strptime(line[:19].decode(errors="replace"), "%Y/%m/%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0


def key_of(host: str, live: Mapping[str, str]) -> str | None:
    """What the table has for the host name, which may be followed by a port: the name, or `*.` and a parent of it."""
    key = name = host.lower().partition(":")[0].removesuffix(".")
    while key not in live and "." in name:
        name = name.partition(".")[2]
        key = f"*.{name}"
    return key if key in live else None


def cleaned(line: bytes) -> str:
    """Without what follows a `?`, which may hold tokens."""
    return _QUERY.sub("?…", line.decode(errors="replace"))
