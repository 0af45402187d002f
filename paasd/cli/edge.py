"""edge:*"""

from __future__ import annotations

import os

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command(
    "edge:set",
    examples=(
        "edge:set blog allow 192.0.2.0/24 2001:db8::/32",
        "edge:set blog body-size 1g",
        "edge:set blog error-page.502 < sorry.html",
        "edge:set blog allow",
    ),
)
@app_argument
@click.argument("key")
@click.argument("value", nargs=-1)
@click.pass_obj
def set_(cli: Cli, app: str, key: str, value: tuple[str, ...]) -> None:
    """Set how the edge treats an app's requests, at once; without a value the default holds again."""
    text = " ".join(value)
    if not value and is_page(key) and not os.isatty(cli.console.stdin):
        text = cli.console.read_all()
        if not text.strip():
            raise InvalidInput(
                "no page comes on standard input, and nothing was changed",
                hint=f"edge:set {app} {key} < page.html, or the edge's own again: edge:set {app} {key} ''",
            )
    found = cli.client.request("PATCH", app_path(app, "edge"), {"settings": {key: text or None}})["settings"][key]
    shown = shown_value(key, found["value"])
    cli.console.print(f"-----> Set {key} of {app} to {shown}" if text else f"-----> Unset {key} of {app}")


def is_page(key: str) -> bool:
    """Whether the value is HTML, which comes from a file and is not printed."""
    return key.endswith(".page") or key.startswith("error-page.")


def shown_value(key: str, value: str) -> str:
    return f"HTML, {len(value.encode())} bytes" if value and is_page(key) else value


@root.command("edge:report", examples=("edge:report blog",))
@app_argument
@click.option("--all", "everything", is_flag=True, help="Also what is not set.")
@json_option
@click.pass_obj
def report(cli: Cli, app: str, everything: bool, as_json: bool) -> None:
    """Show how the edge treats an app's requests."""
    found = cli.client.get(app_path(app, "edge"))["settings"]
    if as_json:
        return cli.console.json(found)
    shown = {key: each for key, each in found.items() if each["set"] or everything}
    if not shown:
        cli.console.print(f"Nothing is set for {app}; see what can be: edge:report {app} --all")
    else:
        rows = [(key, shown_value(key, each["value"]) or "-", each["description"]) for key, each in shown.items()]
        cli.console.table(("SETTING", "VALUE", "MEANING"), rows)
