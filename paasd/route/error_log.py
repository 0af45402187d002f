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


def lines_of(app: str, live: Mapping[str, str], since: float) -> Callable[[bytes], bool]:
    """Whether a line is of the app, which was made at `since`: before that its names may have been others'. `live` is
    the edge's table of host names."""

    def wanted(line: bytes) -> bool:
        hosts = _HOST.findall(line)
        if not hosts or any(owner(host.decode("ascii", "replace"), live) != app for host in hosts):
            return False
        return _written(line) >= int(since)

    return wanted


def _written(line: bytes) -> float:
    try:
        return time.mktime(time.strptime(line[:19].decode(errors="replace"), "%Y/%m/%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0


def owner(host: str, live: Mapping[str, str]) -> str | None:
    """App that has the host name, which may be followed by a port."""
    name = host.lower().partition(":")[0].removesuffix(".")
    found = live.get(name)
    while found is None and "." in name:
        name = name.partition(".")[2]
        found = live.get(f"*.{name}")
    return app_of(found) if found else None


def cleaned(line: bytes) -> str:
    """Without what follows a `?`, which may hold tokens."""
    return _QUERY.sub("?…", line.decode(errors="replace"))
