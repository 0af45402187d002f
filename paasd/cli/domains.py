"""domains:*"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("domains:add", examples=("domains:add blog www.example.org example.org",))
@app_argument
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def add(cli: Cli, app: str, names: tuple[str, ...]) -> None:
    """Serve an app under more host names."""
    cli.client.request("POST", app_path(app, "domains"), {"names": list(names)})
    for name in names:
        cli.console.print(f"-----> Added {name} to {app}")


@root.command("domains:remove", examples=("domains:remove blog www.example.org",))
@app_argument
@click.argument("name")
@click.pass_obj
def remove(cli: Cli, app: str, name: str) -> None:
    """Stop serving an app under a host name."""
    cli.client.request("DELETE", app_path(app, "domains", name))
    cli.console.print(f"-----> Removed {name} from {app}")


@root.command("domains:list", examples=("domains:list blog",))
@app_argument
@json_option
@click.pass_obj
def list_domains(cli: Cli, app: str, as_json: bool) -> None:
    """List an app's host names."""
    names = cli.client.get(app_path(app, "domains"))["items"]
    if as_json:
        return cli.console.json(names)
    cli.console.heading(f"{app} domains")
    for name in names:
        cli.console.print(name)
