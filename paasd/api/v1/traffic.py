"""What apps were asked and answered, as the edge counted it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paasd.api.operations import Call, Operation
from paasd.gateway.breaker import BreakerState
from paasd.identity.policy import Action
from paasd.route.control import AppCounters
from paasd.route.edge import Edge
from paasd.route.latency import apdex, quantile


class TrafficResource:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "GET",
                "/apps/{app}/traffic",
                Action.APP_READ,
                self.report,
                "Requests, statuses, bytes, latencies in seconds and Apdex since Nginx started; the app's breaker",
            )
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        name = call.app.name
        return _shape((await self._edge.counters()).get(name), await self._edge.breakers(), name)


def _shape(counters: AppCounters | None, breakers: Mapping[str, BreakerState], app: str) -> dict[str, Any]:
    found = counters or AppCounters(0, {}, 0, 0, 0.0, {})
    score, breaker = apdex(found.latency, found.statuses.get("5xx", 0)), breakers.get(app)
    return {
        "app": app,
        "requests": found.requests,
        "statuses": dict(found.statuses),
        "bytes_in": found.bytes_in,
        "bytes_out": found.bytes_out,
        **{f"p{share}": _rounded(quantile(found.latency, share / 100)) for share in (50, 95, 99)},
        "apdex": None if score is None else round(score, 2),
        "breaker": {"state": breaker.state, "seconds": breaker.seconds} if breaker else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
