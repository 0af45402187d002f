"""domains:*"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import click

from paasd.cli.framework import AppName, Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput, PaasdError

_GLOBAL = "/global-domains"
_names = click.argument("names", nargs=-1, required=True)


@root.command(
    "domains:add", examples=("domains:add blog www.example.org example.org", "domains:add blog '*.blog.example.org'")
)
@app_argument
@_names
@click.pass_obj
def add(cli: Cli, app: str, names: tuple[str, ...]) -> None:
    """Serve an app under more host names; a first label * stands for any. Says whether DNS points here."""
    found = cli.client.request("POST", app_path(app, "domains"), {"names": list(names)})
    for name in found["added"]:
        cli.console.print(f"-----> Added {_both(name, found)} to {app}")
    _tell_pointings(cli, app, found["added"])


@root.command("domains:remove", examples=("domains:remove blog www.example.org",))
@app_argument
@_names
@click.pass_obj
def remove(cli: Cli, app: str, names: tuple[str, ...]) -> None:
    """Stop serving an app under host names."""
    for name in names:
        cli.client.request("DELETE", app_path(app, "domains", name))
        cli.console.print(f"-----> Removed {name} from {app}")


@root.command("domains:set", examples=("domains:set blog www.example.org example.org",))
@app_argument
@_names
@click.pass_obj
def set_(cli: Cli, app: str, names: tuple[str, ...]) -> None:
    """Serve an app under these host names of its own and no others; the first is the one in its URL."""
    found = cli.client.request("PUT", app_path(app, "domains"), {"names": list(names)})
    cli.console.print(f"-----> {app} has {', '.join(_both(name, found) for name in found['items'])}")
    _tell_pointings(cli, app, found["added"])


@root.command("domains:clear", examples=("domains:clear blog",))
@app_argument
@click.pass_obj
def clear(cli: Cli, app: str) -> None:
    """Take all host names of its own from an app; the box's own remains."""
    found = cli.client.request("PUT", app_path(app, "domains"), {"names": []})
    cli.console.print(f"-----> {app} has {', '.join(_both(name, found) for name in found['items'])}")


@root.command("domains:list", examples=("domains:list blog",))
@app_argument
@json_option
@click.pass_obj
def list_domains(cli: Cli, app: str, as_json: bool) -> None:
    """List an app's host names."""
    found = cli.client.get(app_path(app, "domains"))
    if as_json:
        return cli.console.json(found["items"])
    cli.console.heading(f"{app} domains")
    for name in found["items"]:
        cli.console.print(_both(name, found))


@root.command("domains:report", examples=("domains:report blog", "domains:report --global"))
@click.argument("app", type=AppName(), required=False)
@click.option("--global", "everywhere", is_flag=True, help="Show the domains under which every app has its name.")
@json_option
@click.pass_obj
def report(cli: Cli, app: str | None, everywhere: bool, as_json: bool) -> None:
    """Show what each host name of an app is, and where DNS says it points."""
    if everywhere:
        return _report_global(cli, as_json)
    if app is None:
        raise InvalidInput("which app is not said", hint="domains:report APP, or domains:report --global")
    found = cli.client.get(f"{app_path(app, 'domains')}/report")
    if as_json:
        return cli.console.json(found)
    rows = [(_written(one), one["kind"], one["answer"]) for one in found["items"]]
    cli.console.table(("NAME", "KIND", "DNS"), rows)
    _tell_certificates(cli, found["items"])


@root.command("domains:set-global", examples=("domains:set-global apps.example.org",))
@_names
@click.pass_obj
def set_global(cli: Cli, names: tuple[str, ...]) -> None:
    """Give every app a name under these domains, and under no others but the configuration's (administrators)."""
    _print_global(cli, cli.client.request("PUT", _GLOBAL, {"names": list(names)}))


@root.command("domains:add-global", examples=("domains:add-global apps.example.org",))
@_names
@click.pass_obj
def add_global(cli: Cli, names: tuple[str, ...]) -> None:
    """Give every app a name under more domains (administrators)."""
    _print_global(cli, cli.client.request("POST", _GLOBAL, {"names": list(names)}))


@root.command("domains:remove-global", examples=("domains:remove-global apps.example.org",))
@click.argument("name")
@click.pass_obj
def remove_global(cli: Cli, name: str) -> None:
    """Take the names under a domain from all apps (administrators)."""
    _print_global(cli, cli.client.request("DELETE", f"{_GLOBAL}/{quote(name, safe='')}"))


@root.command("domains:clear-global", examples=("domains:clear-global",))
@click.pass_obj
def clear_global(cli: Cli) -> None:
    """Leave the apps their names under the configuration's domain only (administrators)."""
    _print_global(cli, cli.client.request("PUT", _GLOBAL, {"names": []}))


def _report_global(cli: Cli, as_json: bool) -> None:
    found = cli.client.get(_GLOBAL)
    if as_json:
        return cli.console.json({"items": found["items"], "built_in": found["built_in"]})
    _print_global(cli, found)


def _print_global(cli: Cli, found: Mapping[str, Any]) -> None:
    for name in found["items"]:
        cli.console.print(f"-----> Every app is at <app>.{_both(name, found)}")
    cli.console.print(f"-----> Every app is at <app>.{found['built_in']} (http.domain in paasd.toml)")


def _tell_pointings(cli: Cli, app: str, names: Sequence[str]) -> None:
    """A note; the names are in effect already, whatever comes of it."""
    if not names:
        return
    query = urlencode([("name", name) for name in names])
    try:
        found = cli.client.get(f"{app_path(app, 'domains')}/report?{query}")["items"]
    except PaasdError as error:
        return cli.console.print(f" !     Where they point is not known: {error.detail}")
    for one in found:
        mark = "      " if one["dns"] == "here" else " !    "
        cli.console.print(f"{mark} {_written(one)} {one['answer']}")
    _tell_certificates(cli, found)


def _tell_certificates(cli: Cli, items: Sequence[Mapping[str, Any]]) -> None:
    for one in items:
        if one["no_certificate"]:
            cli.console.print(f" !     {_written(one)} gets no certificate by itself: {one['no_certificate']}")


def _written(one: Mapping[str, Any]) -> str:
    return _both(one["name"], {"unicode": {one["name"]: one["unicode"]}})


def _both(name: str, found: Mapping[str, Any]) -> str:
    """As people write it, and as it is stored."""
    written = found["unicode"].get(name, name)
    return name if written == name else f"{written} ({name})"
