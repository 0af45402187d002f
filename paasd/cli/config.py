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


@root.command("config:set", examples=("config:set blog TITLE=Hello DEBUG=0", "config:set --no-restart blog KEY=value"))
@_no_restart
@click.option("--encoded", is_flag=True, help="The values are base64.")
@app_argument
@click.argument("pairs", nargs=-1, required=True)
@click.pass_obj
def set_vars(cli: Cli, app: str, pairs: tuple[str, ...], no_restart: bool, encoded: bool) -> None:
    """Set config vars, as one release without downtime."""
    values = dict(_pair(word) for word in pairs)
    if encoded:
        values = {name: _decoded(name, value) for name, value in values.items()}
    _change(cli, app, values, [], restart=not no_restart)


@root.command("config:unset", examples=("config:unset blog TITLE DEBUG",))
@_no_restart
@app_argument
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def unset_vars(cli: Cli, app: str, names: tuple[str, ...], no_restart: bool) -> None:
    """Remove config vars, as one release without downtime."""
    _change(cli, app, {}, list(names), restart=not no_restart)


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
@app_argument
@click.pass_obj
def import_vars(cli: Cli, app: str, no_restart: bool) -> None:
    """Set config vars from NAME=value lines (or a JSON object) on standard input."""
    _change(cli, app, parse_env(cli.console.read_all()), [], restart=not no_restart)


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


def _change(cli: Cli, app: str, values: Mapping[str, str], unset: list[str], *, restart: bool) -> None:
    cli.console.print("-----> Setting config vars" if values else "-----> Unsetting config vars")
    cli.console.facts({name: value if len(value) <= 80 else f"{value[:77]}..." for name, value in values.items()})
    for name in unset:
        cli.console.print(f"       {name}")
    result = cli.stream("PATCH", app_path(app, "config"), {"set": dict(values), "unset": unset, "restart": restart})
    if not result["changed"]:
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
