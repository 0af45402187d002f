"""redirects:*"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root

_STATUSES = ("301", "302", "307", "308")


@root.command(
    "redirects:add",
    examples=(
        "redirects:add blog www.example.org example.org",
        "redirects:add blog old.example.org https://shop.example.com/blog --status 308",
    ),
)
@app_argument
@click.argument("source", metavar="FROM")
@click.argument("to")
@click.option("--status", type=click.Choice(_STATUSES), default="301", help="Status of the answer; 301 by default.")
@click.pass_obj
def add(cli: Cli, app: str, source: str, to: str, status: str) -> None:
    """Send requests for a host name on, path and query kept: to another name of the app, or to a URL."""
    body = {"host": source, "to": to, "status": int(status)}
    found = cli.client.request("POST", app_path(app, "redirects"), body)
    cli.console.print(f"-----> {_both(found['host'], found['unicode'])} redirects to {found['to']} ({found['status']})")


@root.command("redirects:remove", examples=("redirects:remove blog www.example.org",))
@app_argument
@click.argument("source", metavar="FROM")
@click.pass_obj
def remove(cli: Cli, app: str, source: str) -> None:
    """Redirect a host name no more."""
    cli.client.request("DELETE", app_path(app, "redirects", source))
    cli.console.print(f"-----> {source} is not redirected any more")


@root.command("redirects:list", examples=("redirects:list blog",))
@app_argument
@json_option
@click.pass_obj
def list_(cli: Cli, app: str, as_json: bool) -> None:
    """List an app's redirects."""
    found = cli.client.get(app_path(app, "redirects"))["items"]
    if as_json:
        return cli.console.json(found)
    rows = [(_both(one["host"], one["unicode"]), one["url"], one["status"]) for one in found]
    cli.console.table(("FROM", "TO", "STATUS"), rows)


def _both(name: str, written: str) -> str:
    return name if written == name else f"{written} ({name})"
