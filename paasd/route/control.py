"""Client of the edge's control socket, and the lines of text spoken there."""

from __future__ import annotations

import io
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from paasd import failpoints
from paasd.edge_values import CanaryRoute, Endpoint, Route
from paasd.errors import EdgeError, InvalidInput
from paasd.names import app_name, shown

_TIMEOUT = 5.0
_ENDPOINT = re.compile(r"([0-9.]+):([0-9]+)/([0-9]+)")
_VARIABLE = re.compile(r"(?:http|cookie)_[a-z0-9_]{1,60}")
_STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
MAX_WEIGHT = 1000
_HOLD = "hold="


@dataclass(frozen=True)
class AppCounters:
    """What an app, or a part of it, was asked and answered since Nginx started; the edge's own error pages are counted
    too."""

    requests: int
    statuses: Mapping[str, int]
    """By class: `1xx` to `5xx`."""
    bytes_in: int
    bytes_out: int
    seconds: float
    """Sum of the latencies in the histogram."""
    latency: Mapping[float, int]
    """Requests by upper bound in seconds, `inf` last; not cumulative. WebSockets are left out."""


def route_line(route: Route) -> str:
    """`<release> <address>:<port>/<weight> …`, with a canary then `| <release> <percent> <variable or ->` and its
    endpoints; `hold=<seconds>` instead of endpoints while the app sleeps. Raises InvalidInput."""
    app_name(route.app)
    words = [str(int(route.release)), *_written(route.endpoints)]
    if route.hold is not None:
        words.append(f"{_HOLD}{float(route.hold):g}")
    if canary := route.canary:
        variable = canary.variable or "-"
        if not 0 <= canary.percent <= 100 or not (canary.variable is None or _VARIABLE.fullmatch(variable)):
            raise InvalidInput(f"a canary of {canary.percent} % by {shown(variable)} is not possible")
        words += ["|", str(int(canary.release)), str(int(canary.percent)), variable, *_written(canary.endpoints)]
    return " ".join(words)


def parse_route(app: str, line: str) -> Route:
    stable, _, rest = line.partition(" |")
    release, *endpoints = stable.split()
    canary, hold = _canary(rest.split()) if rest else None, _hold(endpoints)
    return Route(app, _read(endpoints), int(release), canary, hold)


def _hold(words: Iterable[str]) -> float | None:
    return next((float(word.removeprefix(_HOLD)) for word in words if word.startswith(_HOLD)), None)


def _canary(words: Sequence[str]) -> CanaryRoute:
    release, percent, variable, *endpoints = words
    return CanaryRoute(_read(endpoints), int(release), int(percent), None if variable == "-" else variable)


def _read(words: Iterable[str]) -> tuple[Endpoint, ...]:
    found = (_ENDPOINT.fullmatch(word) for word in words)
    return tuple(Endpoint(m[1], int(m[2]), int(m[3])) for m in found if m)


def _written(endpoints: Iterable[Endpoint]) -> list[str]:
    for endpoint in endpoints:
        _check(endpoint)
    return [f"{endpoint}/{endpoint.weight}" for endpoint in endpoints]


def parse_counters(text: str) -> dict[str, AppCounters]:
    """By the name of the row: an app's, or that with a suffix for a part of its requests."""
    bounds_line, *lines = text.splitlines()
    bounds = [*(int(bound) / 1000 for bound in bounds_line.split()), float("inf")]
    counters = {}
    for line in lines:
        app, *fields = line.split()
        requests, *rest = map(int, fields)
        statuses, (bytes_in, bytes_out, milliseconds), buckets = rest[:5], rest[5:8], rest[8:]
        counters[app] = AppCounters(
            requests,
            dict(zip(_STATUS_CLASSES, statuses, strict=True)),
            bytes_in,
            bytes_out,
            milliseconds / 1000,
            dict(zip(bounds, buckets, strict=True)),
        )
    return counters


def _check(endpoint: Endpoint) -> None:
    try:
        ipaddress.IPv4Address(endpoint.address)
    except ValueError:
        raise InvalidInput(f"an endpoint needs an IPv4 address, not {endpoint.address!r}") from None
    if not 1 <= endpoint.port <= 65535 or not 0 <= endpoint.weight <= MAX_WEIGHT:
        raise InvalidInput(f"endpoint {endpoint} with weight {endpoint.weight} is out of range")


class Refused(EdgeError):
    """Nginx answers, and does not take it."""


class ControlSocket:
    """One request a connection, so that an old worker's kept connection is never asked. Raises EdgeError."""

    LOADED = "loaded"
    """Host name and path at which each configuration says which it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def get(self, what: str, *, within: float = _TIMEOUT) -> str:
        return await self._ask("GET", what, within=within)

    async def put(self, what: str, text: str) -> None:
        await self._ask("PUT", what, text)

    async def patch(self, what: str, text: str) -> None:
        await self._ask("PATCH", what, text)

    async def delete(self, what: str) -> None:
        await self._ask("DELETE", what)

    async def generations(self) -> tuple[int, int]:
        """Generation of the configuration that answered, and the oldest whose workers still accept."""
        answering, oldest = (await self.get("generation")).split()
        return int(answering), int(oldest)

    async def loaded(self) -> tuple[str, int]:
        """Token and generation of the configuration that answered."""
        token, generation = (await self._ask("GET", self.LOADED, host=self.LOADED)).split()
        return token, int(generation)

    async def _ask(
        self, method: str, what: str, text: str | None = None, *, within: float = _TIMEOUT, host: str = "edge"
    ) -> str:
        timeout = aiohttp.ClientTimeout(total=within)
        connector = aiohttp.UnixConnector(str(self.path), force_close=True)
        body = None if text is None else io.BytesIO(text.encode())  # aiohttp warns of long strings
        try:
            async with (
                failpoints.call("edge", lambda: OSError("fault")),
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://{host}/{what}", data=body) as response,
            ):
                answer = await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise EdgeError(f"Nginx does not answer on its control socket: {reason}") from error
        if response.status != 200:
            raise Refused(f"Nginx refused {method} /{what} with {response.status}: {answer.strip()[:500]}")
        return answer
