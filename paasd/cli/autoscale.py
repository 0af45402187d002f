"""autoscale:*"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command(
    "autoscale:set",
    examples=(
        "autoscale:set blog web min=2 max=10 cpu=70",
        "autoscale:set blog web rps=50 p95=500ms cooldown=2m",
        "autoscale:set blog web cpu=",
    ),
)
@app_argument
@click.argument("process_type")
@click.argument("settings", nargs=-1, required=True)
@click.pass_obj
def set_(cli: Cli, app: str, process_type: str, settings: tuple[str, ...]) -> None:
    """Have as many instances as the load needs: min, max, cpu and memory (percent of the limit), rps (requests per
    second and instance), p95 (time of an answer), cooldown. An empty value unsets."""
    changes = {}
    for word in settings:
        key, separator, value = word.partition("=")
        if not separator:
            raise InvalidInput(f"{word!r} is not of the form key=value", hint="For example: max=10 cpu=70")
        changes[key] = value or None
    cli.client.request("PATCH", app_path(app, "autoscale"), {"process_type": process_type, "settings": changes})
    cli.console.print(f"-----> Autoscaling {process_type} of {app}: {' '.join(settings)}")


@root.command("autoscale:report", examples=("autoscale:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show what is autoscaled, what was seen last, and how many instances that asks for."""
    found = cli.client.get(app_path(app, "autoscale"))
    if as_json:
        return cli.console.json(found)
    if not found:
        return cli.console.print(
            f"       nothing of {app} is autoscaled; for example: autoscale:set {app} web max=5 cpu=70"
        )
    rows = [
        (name, _rule(one["rule"]), _seen(one["seen"]), one["recommended"], one["reason"]) for name, one in found.items()
    ]
    cli.console.table(("TYPE", "RULE", "SEEN", "WANTED", "REASON"), rows)


@root.command("autoscale:unset", examples=("autoscale:unset blog", "autoscale:unset blog web"))
@app_argument
@click.argument("process_type", required=False)
@click.pass_obj
def unset(cli: Cli, app: str, process_type: str | None) -> None:
    """Stop autoscaling; the instances stay as they are."""
    left = cli.client.request("DELETE", app_path(app, "autoscale"), {"process_type": process_type})
    if process_type in left if process_type else left:
        return cli.console.print("-----> What was set is unset; what app.json of the live release says holds")
    cli.console.print(f"-----> {app} {process_type + ' ' if process_type else ''}is not autoscaled any more")


def _rule(rule: dict[str, Any]) -> str:
    return " ".join(f"{key}={value:g}{_unit(key)}" for key, value in rule.items() if value is not None)


def _unit(key: str) -> str:
    return {"cpu": "%", "memory": "%", "p95": "s", "cooldown": "s"}.get(key, "")


def _seen(load: dict[str, Any]) -> str:
    return " ".join(f"{key}={value:.3g}{_unit(key)}" for key, value in load.items() if value is not None)
