"""config:*"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
from collections.abc import Mapping

import click

from paasd.cli.console import as_json
from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput, NotFound
from paasd.names import config_key

_no_restart = click.option("--no-restart", is_flag=True, help="Only store; the next release uses it.")
_stage = click.option("--stage", is_flag=True, help="Only keep it, until config:apply.")


@root.command("config:set", examples=("config:set blog TITLE=Hello DEBUG=0", "config:set --no-restart blog KEY=value"))
@_no_restart
@_stage
@click.option("--encoded", is_flag=True, help="The values are base64.")
@app_argument
@click.argument("pairs", nargs=-1, required=True)
@click.pass_obj
def set_vars(cli: Cli, app: str, pairs: tuple[str, ...], no_restart: bool, stage: bool, encoded: bool) -> None:
    """Set config vars, as one release without downtime."""
    values = dict(_pair(word) for word in pairs)
    if encoded:
        values = {name: _decoded(name, value) for name, value in values.items()}
    _change(cli, app, values, [], restart=not no_restart, stage=stage)


@root.command("config:unset", examples=("config:unset blog TITLE DEBUG",))
@_no_restart
@_stage
@app_argument
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def unset_vars(cli: Cli, app: str, names: tuple[str, ...], no_restart: bool, stage: bool) -> None:
    """Remove config vars, as one release without downtime."""
    _change(cli, app, {}, list(names), restart=not no_restart, stage=stage)


@root.command("config:get", examples=("config:get blog DATABASE_URL",))
@app_argument
@click.argument("name")
@click.pass_obj
def get_var(cli: Cli, app: str, name: str) -> None:
    """Print the value of one config var."""
    values = cli.client.get(app_path(app, "config"))["items"]
    if name not in values:
        raise NotFound(f"{app} has no config var {name}", hint=f"List them with: config:show {app}")
    cli.console.exact(values[name])


@root.command("config:show", examples=("config:show blog",))
@app_argument
@json_option
@click.pass_obj
def show(cli: Cli, app: str, as_json: bool) -> None:
    """Print all config vars."""
    values = cli.client.get(app_path(app, "config"))["items"]
    if as_json:
        return cli.console.json(values)
    cli.console.heading(f"{app} env vars")
    width = max((len(name) for name in values), default=0) + 1
    for name, value in values.items():
        cli.console.print(f"{(name + ':').ljust(width)}  {value}")


@root.command("config:export", examples=("config:export blog > .env", "config:export blog --format json"))
@app_argument
@click.option("--format", "form", type=click.Choice(["env", "shell", "json"]), default="env")
@click.pass_obj
def export(cli: Cli, app: str, form: str) -> None:
    """Print all config vars for a file or a shell."""
    values = cli.client.get(app_path(app, "config"))["items"]
    if form == "json":
        return cli.console.json(values)
    for name, value in values.items():
        if form == "shell":
            cli.console.exact(f"export {name}={shlex.quote(value)}")
        else:
            cli.console.exact(f"{name}={as_json(value)}")


@root.command("config:import", examples=("config:import blog < .env",))
@_no_restart
@_stage
@app_argument
@click.pass_obj
def import_vars(cli: Cli, app: str, no_restart: bool, stage: bool) -> None:
    """Set config vars from NAME=value lines (or a JSON object) on standard input."""
    _change(cli, app, parse_env(cli.console.read_all()), [], restart=not no_restart, stage=stage)


def parse_env(text: str) -> dict[str, str]:
    """Values of an `.env` file or a JSON object. Raises InvalidInput naming the line."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidInput(f"not valid JSON: {error}") from error
        if not all(isinstance(value, str) for value in found.values()):
            raise InvalidInput("all values of the JSON object must be strings")
        return dict(found)
    values = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        try:
            name, value = _pair(line)
            values[name] = _unquoted(value)
        except InvalidInput as error:
            raise InvalidInput(f"line {number}: {error.detail}", hint=error.hint) from error
    return values


@root.command("config:diff", examples=("config:diff blog",))
@app_argument
@json_option
@click.pass_obj
def diff(cli: Cli, app: str, as_json: bool) -> None:
    """Show which config vars are staged; their values stay hidden."""
    found = cli.client.get(app_path(app, "config", "staged"))["items"]
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} staged config vars")
    cli.console.facts({item["name"]: item["change"] for item in found})
    cli.console.print(f"       Apply with: config:apply {app}" if found else "       nothing is staged")


@root.command("config:apply", examples=("config:apply blog",))
@app_argument
@click.pass_obj
def apply(cli: Cli, app: str) -> None:
    """Apply all staged config vars, as one release without downtime."""
    result = cli.stream("POST", app_path(app, "config", "staged"))
    cli.console.print(f"-----> Applied {', '.join(result['applied'])}")


@root.command("config:discard", examples=("config:discard blog",))
@app_argument
@click.pass_obj
def discard(cli: Cli, app: str) -> None:
    """Forget what is staged."""
    count = cli.client.request("DELETE", app_path(app, "config", "staged"))["discarded"]
    cli.console.print(f"-----> Discarded {count} staged config vars of {app}")


def _change(cli: Cli, app: str, values: Mapping[str, str], unset: list[str], *, restart: bool, stage: bool) -> None:
    doing = "Staging" if stage else "Setting" if values else "Unsetting"
    cli.console.print(f"-----> {doing} config vars")
    cli.console.facts({name: value if len(value) <= 80 else f"{value[:77]}..." for name, value in values.items()})
    for name in unset:
        cli.console.print(f"       {name}")
    result = cli.stream(
        "PATCH", app_path(app, "config"), {"set": dict(values), "unset": unset, "restart": restart, "stage": stage}
    )
    if stage:
        cli.console.print(f"       {result['staged']} are staged; see config:diff {app}, then config:apply {app}")
    elif not result["changed"]:
        cli.console.print("       Nothing changed.")


def _pair(word: str) -> tuple[str, str]:
    name, separator, value = word.partition("=")
    if not separator:
        raise InvalidInput(f"{name!r} is not of the form NAME=value", hint="Quote values that hold spaces.")
    return config_key(name.strip()), value


def _unquoted(value: str) -> str:
    text = value.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            return text[1:-1]
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    return text


def _decoded(name: str, value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidInput(f"the value of {name} is not base64 text: {error}") from error
