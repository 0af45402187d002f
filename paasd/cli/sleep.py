"""sleep:*, ps:wake"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command("sleep:set", examples=("sleep:set blog after=30m", "sleep:set blog after=2h hold=10s workers=yes"))
@app_argument
@click.argument("settings", nargs=-1, required=True)
@click.pass_obj
def set_(cli: Cli, app: str, settings: tuple[str, ...]) -> None:
    """Stop an app's instances when nobody has asked for it for a while (after), and start them again with the next
    request, which waits (hold, 30s). The other process types go on, unless workers=yes. An empty value unsets."""
    changes = {}
    for word in settings:
        key, separator, value = word.partition("=")
        if not separator:
            raise InvalidInput(f"{word!r} is not of the form key=value", hint="For example: after=30m hold=10s")
        changes[key] = value or None
    if changes.get("after") == "off":
        return _turn_off(cli, app)
    rule = cli.client.request("PATCH", app_path(app, "sleep"), {"settings": changes})["rule"]
    cli.console.print(f"-----> {app} sleeps: {_rule(rule)}")


@root.command("sleep:off", examples=("sleep:off blog",))
@app_argument
@click.pass_obj
def off(cli: Cli, app: str) -> None:
    """Never put an app to sleep; if it sleeps it is woken."""
    _turn_off(cli, app)


def _turn_off(cli: Cli, app: str) -> None:
    cli.stream("DELETE", app_path(app, "sleep"))
    cli.console.print(f"-----> {app} is never put to sleep")


@root.command("sleep:report", examples=("sleep:report", "sleep:report blog"))
@click.argument("app", required=False)
@json_option
@click.pass_obj
def report(cli: Cli, app: str | None, as_json: bool) -> None:
    """Show which apps sleep, when, and for how long nobody has asked for them."""
    found = [cli.client.get(app_path(app, "sleep"))] if app else cli.client.get("/sleep")["items"]
    if as_json:
        return cli.console.json(found[0] if app else found)
    if not found:
        return cli.console.print("       no app sleeps; for example: sleep:set blog after=30m")
    rows = [(one["app"], _state(one), _rule(one["rule"]), _idle(one["idle"])) for one in found]
    cli.console.table(("APP", "STATE", "RULE", "NO REQUEST FOR"), rows)


@root.command("sleep:now", examples=("sleep:now blog",))
@app_argument
@click.pass_obj
def now(cli: Cli, app: str) -> None:
    """Put an app to sleep without waiting for its time."""
    cli.stream("POST", app_path(app, "sleep", "now"))
    cli.console.print(f"-----> {app} is asleep; the next request wakes it")


@root.command("ps:wake", examples=("ps:wake blog",))
@app_argument
@click.pass_obj
def wake(cli: Cli, app: str) -> None:
    """Wake an app without a request."""
    seconds = cli.stream("POST", app_path(app, "sleep", "wake"))["seconds"]
    told = f"{app} was awake" if seconds is None else f"{app} is awake after {seconds:.2f} s"
    cli.console.print(f"-----> {told}")


def _rule(rule: dict[str, Any] | None) -> str:
    if rule is None:
        return "never"
    return f"after={rule['after']:g}s hold={rule['hold']:g}s workers={'yes' if rule['workers'] else 'no'}"


def _state(one: dict[str, Any]) -> str:
    return "asleep" if one["asleep"] else "awake"


def _idle(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"
