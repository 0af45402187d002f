"""maintenance:*"""

from __future__ import annotations

import click

from paasd.cli.edge import shown_value
from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("maintenance:on", examples=("maintenance:on blog", "edge:set blog maintenance.allow 192.0.2.7"))
@app_argument
@click.pass_obj
def on(cli: Cli, app: str) -> None:
    """Answer requests to an app with 503 and a page, at once; what runs goes on running. Own page: edge:set APP
    maintenance.page < page.html."""
    _set(cli, app, "on")
    cli.console.print(f"-----> {app} is under maintenance")


@root.command("maintenance:off", examples=("maintenance:off blog",))
@app_argument
@click.pass_obj
def off(cli: Cli, app: str) -> None:
    """Have an app answer again."""
    _set(cli, app, None)
    cli.console.print(f"-----> {app} answers again")


def _set(cli: Cli, app: str, value: str | None) -> None:
    cli.client.request("PATCH", app_path(app, "edge"), {"settings": {"maintenance": value}})


@root.command("maintenance:report", examples=("maintenance:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show whether an app is under maintenance, what is answered then, and who gets in all the same."""
    settings = cli.client.get(app_path(app, "edge"))["settings"]
    found = {key: each["value"] for key, each in settings.items() if key.partition(".")[0] == "maintenance"}
    found["maintenance"] = found["maintenance"] or "off"
    if as_json:
        return cli.console.json(found)
    cli.console.facts(
        {
            "Maintenance": found["maintenance"],
            "Page": shown_value("maintenance.page", found["maintenance.page"]) or "the edge's own",
            "Gets in": found["maintenance.allow"] or "nobody",
            "Retry after": f"{found['maintenance.retry-after'] or 60} s",
        }
    )
