"""apps:sign-in, apps:sign-out"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("apps:sign-in", examples=("apps:sign-in blog", "apps:sign-in blog --host www.example.org"))
@app_argument
@click.option("--host", help="Which of the app's host names (default: its main one).")
@json_option
@click.pass_obj
def sign_in(cli: Cli, app: str, host: str | None, as_json: bool) -> None:
    """Print a link that signs your browser in to an app with auth.members, once and within five minutes."""
    found = cli.client.request("POST", app_path(app, "sign-ins"), {"host": host})
    if as_json:
        return cli.console.json(found)
    cli.console.print(f"-----> Open this in your browser within {found['seconds'] // 60} minutes; it works once:")
    cli.console.print(found["url"])


@root.command("apps:sign-out", examples=("apps:sign-out blog",))
@app_argument
@click.pass_obj
def sign_out(cli: Cli, app: str) -> None:
    """Sign everybody out of an app with auth.members, and make links void that nobody opened yet."""
    cli.client.request("DELETE", app_path(app, "sign-ins"))
    cli.console.print(f"-----> Everybody is signed out of {app}")
