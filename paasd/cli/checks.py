"""checks:*"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command(
    "checks:set",
    examples=(
        "checks:set blog web --path /health",
        "checks:set blog web --timeout 10",
        "checks:set blog web --path ''",
    ),
)
@app_argument
@click.argument("process_type", default="web")
@click.option("--path", help="HTTP path that must answer 200 to 399.")
@click.option("--content", help="Text its answer must hold.")
@click.option("--attempts", help="Wrong answers before the check fails.")
@click.option("--wait", help="Seconds between two attempts.")
@click.option("--timeout", help="Seconds for one answer.")
@click.option("--initial-delay", "initialDelay", help="Seconds before the first attempt.")
@click.option("--uptime", help="Seconds the instance must stay up.")
@click.pass_obj
def set_checks(cli: Cli, /, app: str, process_type: str, **options: str | None) -> None:
    """Set how new instances are checked from the next deployment on; an empty value unsets."""
    settings = {name: _value(name, text) for name, text in options.items() if text is not None}
    if not settings:
        raise InvalidInput("nothing to set", hint="For example: checks:set blog web --path /health")
    cli.client.request("PATCH", app_path(app, "checks"), {"process_type": process_type, "settings": settings})
    cli.console.print(f"-----> Set checks of {app} {process_type}; the next deployment uses them")


@root.command("checks:report", examples=("checks:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show the checks of the live release and what was set."""
    found = cli.client.get(app_path(app, "checks"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} checks information")
    for title, checks in (("Live", found["live"]), ("Set", found["set"])):
        for process_type, values in checks.items():
            cli.console.facts({f"{title} {process_type}": values})
    if not found["live"] and not found["set"]:
        cli.console.print("       web: any HTTP answer on $PORT; others: stay up for 3 s")


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in ("path", "content"):
        return text
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise InvalidInput(f"--{name} must be a number, not {text!r}") from None
