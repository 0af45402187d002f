"""traffic:report"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("traffic:report", examples=("traffic:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show what an app was asked and answered since the edge started, and how quickly."""
    found = cli.client.get(app_path(app, "traffic"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} traffic")
    statuses = ", ".join(f"{count} {status}" for status, count in found["statuses"].items() if count)
    cli.console.facts(
        {
            "Requests": f"{found['requests']} ({statuses})" if statuses else found["requests"],
            "Bytes in, out": f"{found['bytes_in']}, {found['bytes_out']}",
            "Answered within": ", ".join(f"{_time(found[f'p{share}'])} (p{share})" for share in (50, 95, 99)),
            "Apdex (0.5 s)": "-" if found["apdex"] is None else found["apdex"],
            "Breaker": _breaker(found["breaker"]),
        }
    )


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _breaker(breaker: dict[str, Any] | None) -> str:
    if not breaker:
        return "none"
    return f"open for another {breaker['seconds']:.0f} s" if breaker["state"] == "open" else str(breaker["state"])
