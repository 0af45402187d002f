"""checks:*"""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput

_TYPES = click.Choice(["startup", "liveness", "readiness"])
_NUMBERS = ("port", "attempts", "successes", "wait", "timeout", "initialDelay", "uptime")
_SWITCHES = ("listening", "warn")


@root.command(
    "checks:set",
    examples=(
        "checks:set blog web --path /health",
        "checks:set blog web --type readiness --path /ready --wait 2",
        "checks:set blog web --type readiness --path /ready --status 204 --successes 5",
        "checks:set blog worker --type liveness --command 'test -e /tmp/alive'",
        "checks:set blog web --path ''",
    ),
)
@app_argument
@click.argument("process_type", default="web")
@click.option("--type", "kind", type=_TYPES, default="startup", show_default=True, help="Which check.")
@click.option("--path", help="HTTP path that must answer 200 to 399, or as --status says.")
@click.option("--status", help="What it must answer: 204, 2xx, or several such as '2xx 404'.")
@click.option("--content", help="Text its answer must hold.")
@click.option("--scheme", help="http or https.")
@click.option("--header", "headers", multiple=True, help="Header of the request, as 'Name: value'; may be repeated.")
@click.option("--command", help="Command that must end with status 0 inside the instance; words or a JSON list.")
@click.option("--listening", help="true: the port must take connections.")
@click.option("--port", help="Port that is asked, if not $PORT.")
@click.option("--attempts", help="Failures in a row before the check counts as failed.")
@click.option("--successes", help="Successes in a row before it passes; readiness: before requests come again.")
@click.option("--wait", help="Seconds between two attempts.")
@click.option("--timeout", help="Seconds for one answer.")
@click.option("--initial-delay", "initialDelay", help="Seconds before the first attempt.")
@click.option("--uptime", help="Seconds the instance must stay up.")
@click.option("--name", help="What reports call the check.")
@click.option("--warn", help="true: a failure is told, and nothing else happens.")
@click.pass_obj
def set_checks(
    cli: Cli, /, app: str, process_type: str, kind: str, headers: tuple[str, ...], **options: str | None
) -> None:
    """Set the first check of a type; an empty value unsets. New instances are asked startup checks, live ones the
    others, from now on."""
    settings = {name: _value(name, text) for name, text in options.items() if text is not None}
    if headers:
        settings["httpHeaders"] = [_header(text) for text in headers if text] or None
    if not settings:
        raise InvalidInput("nothing to set", hint="For example: checks:set blog web --path /health")
    body = {"process_type": process_type, "type": kind, "settings": settings}
    cli.client.request("PATCH", app_path(app, "checks"), body)
    then = "the next deployment uses it" if kind == "startup" else "it is asked from now on"
    cli.console.print(f"-----> Set the {kind} check of {app} {process_type}; {then}")


@root.command("checks:report", examples=("checks:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show an app's checks, and what was seen of each live instance."""
    found = cli.client.get(app_path(app, "checks"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} checks information")
    for title, checks in (("Live", found["live"]), ("Set", found["set"])):
        for process_type, values in checks.items():
            cli.console.facts({f"{title} {process_type}": json.dumps(values)})
    if not any(found["live"].values()) and not found["set"]:
        cli.console.print("       web: any HTTP answer on $PORT; others: stay up for 3 s")
    rows = [_row(instance, check) for instance in found["instances"] for check in instance["checks"]]
    if rows:
        columns = ("INSTANCE", "READY", "RESTARTS", "TYPE", "CHECK", "STATE", "TOOK", "SEEN")
        cli.console.table(columns, rows)


@root.command("checks:run", examples=("checks:run blog",))
@app_argument
@json_option
@click.pass_obj
def run(cli: Cli, app: str, as_json: bool) -> None:
    """Ask all checks of all live instances once, now."""
    found = cli.client.request("POST", app_path(app, "checks", "run"))["items"]
    if as_json:
        return cli.console.json(found)
    rows = [
        (c["instance"], c["type"], c["check"], _outcome(c), f"{c['seconds'] * 1000:.0f} ms", c["seen"]) for c in found
    ]
    cli.console.table(("INSTANCE", "TYPE", "CHECK", "OUTCOME", "TOOK", "SEEN"), rows)


_process_type = click.argument("process_type", required=False)
_type = click.option("--type", "kind", type=_TYPES, help="Only this type.")


@root.command("checks:disable", examples=("checks:disable blog", "checks:disable blog worker --type liveness"))
@app_argument
@_process_type
@_type
@click.pass_obj
def disable(cli: Cli, app: str, process_type: str | None, kind: str | None) -> None:
    """Switch checks off: new instances get requests once they stay up for 3 s, live ones are left alone."""
    _switch(cli, app, process_type, kind, False)


@root.command("checks:enable", examples=("checks:enable blog", "checks:enable blog worker --type liveness"))
@app_argument
@_process_type
@_type
@click.pass_obj
def enable(cli: Cli, app: str, process_type: str | None, kind: str | None) -> None:
    """Switch checks on again."""
    _switch(cli, app, process_type, kind, True)


def _switch(cli: Cli, app: str, process_type: str | None, kind: str | None, enabled: bool) -> None:
    body = {"process_type": process_type, "type": kind, "enabled": enabled}
    cli.client.request("PUT", app_path(app, "checks", "enabled"), body)
    what = " ".join(filter(None, ["the", kind, "checks of", app, process_type]))
    cli.console.print(f"-----> {'Enabled' if enabled else 'Disabled'} {what}")


def _row(instance: dict[str, Any], check: dict[str, Any]) -> tuple[Any, ...]:
    last = check["last"]
    return (
        instance["instance"],
        "yes" if instance["ready"] else "no",
        instance["restarts"],
        check["type"],
        check["check"],
        check["state"] + (" (warning only)" if check["warn"] else ""),
        f"{last['seconds'] * 1000:.0f} ms" if last else "",
        last["seen"] if last else "",
    )


def _outcome(result: dict[str, Any]) -> str:
    return "passed" if result["ok"] else "warning" if result["warn"] else "failed"


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in _NUMBERS:
        try:
            return float(text) if "." in text else int(text)
        except ValueError:
            raise InvalidInput(f"--{name} must be a number, not {text!r}") from None
    if name in _SWITCHES:
        if text not in ("true", "false"):
            raise InvalidInput(f"--{name} must be true or false, not {text!r}")
        return text == "true"
    return _words(text) if name == "command" else text


def _words(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"--command cannot be read: {error}") from None


def _header(text: str) -> dict[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise InvalidInput(f"--header must be 'Name: value', not {text!r}")
    return {"name": name.strip(), "value": value.strip()}
