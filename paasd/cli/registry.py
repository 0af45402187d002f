"""registry:*"""

from __future__ import annotations

import os

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.releases import number_of
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command(
    "registry:set",
    examples=("registry:set blog registry.example.org/team --user ci < password", "registry:set blog localhost:5000"),
)
@app_argument
@click.argument("server")
@click.option("--user", default="", help="Its password is read from standard input.")
@click.option("--manual", is_flag=True, help="Push only when told to with registry:push.")
@click.pass_obj
def set_(cli: Cli, app: str, server: str, user: str, manual: bool) -> None:
    """Push the image of every release to a registry, tagged with the release's version."""
    if user and os.isatty(cli.console.stdin):
        raise InvalidInput("no password comes on standard input", hint=f"registry:set {app} {server} --user … < file")
    password = cli.console.read_all().strip() if user else ""
    body = {"server": server, "user": user, "password": password, "automatic": not manual}
    cli.client.request("PUT", app_path(app, "registry"), body)
    cli.console.print(f"-----> Images of {app} go to {server}/{app}{' when you say so' if manual else ''}")


@root.command("registry:unset", examples=("registry:unset blog",))
@app_argument
@click.pass_obj
def unset(cli: Cli, app: str) -> None:
    """Push no images any more, and forget the password."""
    cli.client.request("DELETE", app_path(app, "registry"))
    cli.console.print(f"-----> Images of {app} stay on this box")


@root.command("registry:push", examples=("registry:push blog", "registry:push blog v12"))
@app_argument
@click.argument("version", required=False)
@click.pass_obj
def push(cli: Cli, app: str, version: str | None) -> None:
    """Push the image of the live release, or of another one."""
    cli.stream("POST", app_path(app, "registry", "push"), {"release": number_of(version) if version else None})


@root.command("registry:report", examples=("registry:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show the app's registry and the digests of what was pushed."""
    found = cli.client.get(app_path(app, "registry"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} registry information")
    automatic = "every release" if found["automatic"] else "when told to"
    cli.console.facts({"Server": found["server"] or "none", "User": found["user"] or "none", "Pushes": automatic})
    cli.console.table(
        ("RELEASE", "IMAGE", "DIGEST", "AT"), [(i["release"], i["name"], i["digest"], i["at"]) for i in found["images"]]
    )
