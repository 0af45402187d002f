"""traffic:report"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root

_SHARES = (50, 95, 99)


@root.command("traffic:report", examples=("traffic:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show what an app and its routes were asked and answered since the edge started, and how quickly."""
    found = cli.client.get(app_path(app, "traffic"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} traffic")
    statuses = _statuses(found)
    cli.console.facts(
        {
            "Requests": f"{found['requests']} ({statuses})" if statuses else found["requests"],
            "Bytes in, out": f"{found['bytes_in']}, {found['bytes_out']}",
            "Answered within": ", ".join(f"{_time(found[f'p{share}'])} (p{share})" for share in _SHARES),
            "Apdex (0.5 s)": _apdex(found),
            "Breaker": _breaker(found["breaker"]),
        }
    )
    if found["routes"]:
        columns = (
            "ROUTE",
            "REQUESTS",
            "STATUSES",
            "BYTES IN",
            "BYTES OUT",
            *(f"P{share}" for share in _SHARES),
            "APDEX",
        )
        cli.console.table(columns, [_row(route) for route in found["routes"]])


def _row(route: dict[str, Any]) -> tuple[Any, ...]:
    times = (_time(route[f"p{share}"]) for share in _SHARES)
    counts = (route["requests"], _statuses(route) or "-", route["bytes_in"], route["bytes_out"])
    return (route["route"], *counts, *times, _apdex(route))


def _statuses(found: dict[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in found["statuses"].items() if count)


def _apdex(found: dict[str, Any]) -> Any:
    return "-" if found["apdex"] is None else found["apdex"]


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _breaker(breaker: dict[str, Any] | None) -> str:
    if not breaker:
        return "none"
    return f"open for another {breaker['seconds']:.0f} s" if breaker["state"] == "open" else str(breaker["state"])
