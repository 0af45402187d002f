"""What apps were asked and answered, as the edge counted it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from paasd.api.operations import Call, Operation
from paasd.gateway.breaker import BreakerState
from paasd.identity.policy import Action
from paasd.route.control import AppCounters
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.route.latency import apdex, quantile

_NOTHING = AppCounters(0, dict.fromkeys(("1xx", "2xx", "3xx", "4xx", "5xx"), 0), 0, 0, 0.0, {})


class TrafficResource:
    def __init__(self, edge: Edge, domains: Domains) -> None:
        self._edge = edge
        self._domains = domains

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "GET",
                "/apps/{app}/traffic",
                Action.APP_READ,
                self.report,
                "Requests, statuses, bytes, latencies in seconds and Apdex since Nginx started, also by route; the"
                " app's breaker",
            )
        ]

    async def report(self, call: Call) -> dict[str, Any]:
        name, routes = call.app.name, await self._domains.counted_routes(call.app)
        counters, further, breakers = await asyncio.gather(
            self._edge.counters(), self._edge.further_counters(name), self._edge.breakers()
        )
        return {
            "app": name,
            **_shape(counters.get(name, _NOTHING)),
            "breaker": _breaker(breakers.get(name)),
            "routes": [{"route": route, **_shape(further.get(f"{name}:{route}", _NOTHING))} for route in routes],
        }


def _shape(counted: AppCounters) -> Mapping[str, Any]:
    score = apdex(counted.latency, counted.statuses["5xx"])
    return {
        "requests": counted.requests,
        "statuses": dict(counted.statuses),
        "bytes_in": counted.bytes_in,
        "bytes_out": counted.bytes_out,
        **{f"p{share}": _rounded(quantile(counted.latency, share / 100)) for share in (50, 95, 99)},
        "apdex": None if score is None else round(score, 2),
    }


def _breaker(state: BreakerState | None) -> dict[str, Any] | None:
    return {"state": state.state, "seconds": state.seconds} if state else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
