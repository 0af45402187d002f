"""The strategy that tries a release on a growing share of the requests, and judges it by what the edge counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from paasd import failpoints
from paasd.drivers.base import Driver
from paasd.edge_values import CanaryRoute, Route
from paasd.errors import CanaryFailed, Conflict
from paasd.models import App
from paasd.progress import Progress
from paasd.route.control import AppCounters
from paasd.route.edge import Edge
from paasd.routing import Routing
from paasd.run.health import crashes
from paasd.run.rollout import Launch

_LOOK = 1.0
_LEAST_REQUESTS, _LEAST_ERRORS = 20, 5
_LEAST_SHARE, _TIMES = 0.02, 2.0
"""An error share is too high when it is over both 2 % and twice that of the old release."""
_SLOWER, _LEAST_SECONDS = 2.0, 0.1
"""So is a 95th percentile of the latency over both twice the old one's and a tenth of a second more."""
_LEAST_TIMED = 50


class Verdict(Enum):
    """What somebody said while a canary was under way."""

    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True)
class Answers:
    """Differences of counters: what one side was asked between two looks."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[float, int] | None = None

    @property
    def share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def p95(self) -> float | None:
        """Upper bound of the bucket that holds the 95th percentile, in seconds; None for too few requests."""
        counts = self.latency or {}
        total = sum(counts.values())
        if total < _LEAST_TIMED:
            return None
        rank = 0
        for bound, count in sorted(counts.items()):
            rank += count
            if rank >= 0.95 * total:
                return bound
        return None


def between(before: AppCounters | None, after: AppCounters | None) -> Answers:
    """Nothing when Nginx began to count anew."""
    if after is None or (before is not None and before.requests > after.requests):
        return Answers()
    old = before.latency if before else {}
    return Answers(
        after.requests - (before.requests if before else 0),
        after.statuses["5xx"] - (before.statuses["5xx"] if before else 0),
        {bound: count - old.get(bound, 0) for bound, count in after.latency.items()},
    )


def without(all_: Answers, canary: Answers) -> Answers:
    """What the old release had: the app's answers are those of both."""
    ours = canary.latency or {}
    return Answers(
        all_.requests - canary.requests,
        all_.errors - canary.errors,
        {bound: count - ours.get(bound, 0) for bound, count in (all_.latency or {}).items()},
    )


def trouble(canary: Answers, stable: Answers) -> str | None:
    """Why the canary must go, in words; None when it may go on."""
    if canary.requests >= _LEAST_REQUESTS and canary.errors >= _LEAST_ERRORS:
        if canary.share > max(_LEAST_SHARE, _TIMES * stable.share):
            return (
                f"{canary.share:.0%} of its {canary.requests} requests were answered with 5xx,"
                f" {stable.share:.1%} of the old release's"
            )
    slow, usual = canary.p95, stable.p95
    if slow is not None and usual is not None and slow > max(_SLOWER * usual, usual + _LEAST_SECONDS):
        return f"its 95th percentile takes {slow:g} s, that of the old release {usual:g} s"
    return None


class Canary:
    """Walks a release through its steps. Callers hold the app's switch lock."""

    def __init__(self, driver: Driver, routing: Routing, edge: Edge) -> None:
        self._driver = driver
        self._routing = routing
        self._edge = edge
        self._verdicts: dict[str, asyncio.Future[Verdict]] = {}
        """Of the canaries under way, by app id."""

    def say(self, app: App, verdict: Verdict) -> None:
        """Promote or abort the app's canary. Raises Conflict when there is none."""
        future = self._verdicts.get(app.id)
        if future is None or future.done():
            raise Conflict(f"no canary of {app.name} is under way", hint=f"Look at: deployments:info {app.name}")
        future.set_result(verdict)

    async def walk(self, launch: Launch, progress: Progress, begun: Callable[[], Awaitable[None]]) -> None:
        """Return when the release has proved itself or somebody promoted it. Raises CanaryFailed; however it ends
        before that, all requests go to the old release again. `begun` is told when it can be promoted and aborted."""
        app = launch.app
        before = await self._routing.of(app)
        endpoints = self._routing.endpoints(launch.release, launch.rows)
        if not before.endpoints or not endpoints:
            return  # nothing to compare with, or nothing that is asked
        self._verdicts[app.id] = asyncio.get_running_loop().create_future()
        try:
            await begun()
            await self._steps(launch, before, CanaryRoute(endpoints, launch.release.number, 0), progress)
        except BaseException:
            await asyncio.shield(self._edge.set_route(before))
            raise
        finally:
            del self._verdicts[app.id]

    async def _steps(self, launch: Launch, before: Route, canary: CanaryRoute, progress: Progress) -> None:
        settings = launch.settings
        canary = replace(canary, variable=settings.canary_variable)
        for percent in settings.canary_steps:
            share = f"{percent} % of the requests for {settings.canary_time:g} s"
            progress.step(f"Canary {launch.release.version}: {share}")
            await self._edge.set_route(replace(before, canary=replace(canary, percent=percent)))
            await failpoints.hit("canary-routed")
            if await self._step(launch, progress) is Verdict.PROMOTE:
                progress.detail("promoted by hand")
                return

    async def _step(self, launch: Launch, progress: Progress) -> Verdict | None:
        """Look again and again until the step's time is over."""
        app, verdict = launch.app, self._verdicts[launch.app.id]
        deadline = time.monotonic() + launch.settings.canary_time
        start = await self._edge.counters()
        while True:
            await asyncio.wait([verdict], timeout=min(_LOOK, max(0.0, deadline - time.monotonic())))
            if verdict.done() and verdict.result() is Verdict.ABORT:
                raise CanaryFailed(f"the canary of {app.name} was aborted")
            counters = await self._edge.counters()
            canary = between(start.get(f"{app.name}~"), counters.get(f"{app.name}~"))
            stable = without(between(start.get(app.name), counters.get(app.name)), canary)
            if reason := await self._restarts(launch) or trouble(canary, stable):
                raise CanaryFailed(
                    f"the canary was given up: {reason}",
                    hint=f"All requests go to the old release. The canary's log: logs {app.name}",
                )
            if verdict.done():
                return verdict.result()
            if time.monotonic() >= deadline:
                progress.detail(
                    f"{canary.requests} requests, {canary.share:.1%} errors;"
                    f" old release {stable.requests}, {stable.share:.1%}"
                )
                return None

    async def _restarts(self, launch: Launch) -> str | None:
        names = {row.name for row in launch.rows}
        for instance in await self._driver.list(launch.app.id):
            if instance.name in names and instance.restarts:
                return crashes(instance)
        return None
