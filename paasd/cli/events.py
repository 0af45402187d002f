"""events"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, json_option
from paasd.cli.root import root


@root.command("events", examples=("events", "events blog --json", "events blog -t", "events -t --after 120"))
@click.argument("app", required=False)
@click.option("-n", "--num", default=50, show_default=True, help="How many, at most 200.")
@click.option("-t", "--tail", "follow", is_flag=True, help="Keep printing what happens.")
@click.option("--after", type=click.IntRange(min=0), help="Only what came after the event of this number.")
@json_option
@click.pass_obj
def events(cli: Cli, app: str | None, num: int, follow: bool, after: int | None, as_json: bool) -> None:
    """List what happened, oldest first. With -t and --json it prints one JSON object per line."""
    if follow:
        query = {"app": app, "limit": max(1, num), "after": after, "follow": 1}
        for event in cli.client.messages("GET", "/events", query=query):
            if as_json:
                cli.console.json_line(event)
            else:
                cli.console.print(" ".join(str(cell) for cell in _row(event) if cell))
        return
    found = cli.client.get("/events", app=app, limit=max(1, num), after=after)["items"]
    if as_json:
        return cli.console.json(found)
    cli.console.table(("ID", "AT", "EVENT", "APP", "BY", ""), [_row(event) for event in found])


def _row(event: dict[str, Any]) -> tuple[Any, ...]:
    data = " ".join(f"{key}={value}" for key, value in event["data"].items() if value != "")
    return event["id"], event["at"], event["type"], event["app"], event["actor"], data
