"""nginx:set-snippet, nginx:clear-snippet"""

from __future__ import annotations

import os

import click

from paasd.cli.framework import Cli, app_argument, app_path
from paasd.cli.root import root
from paasd.errors import InvalidInput


@root.command("nginx:set-snippet", examples=("nginx:set-snippet blog < snippet.conf",))
@app_argument
@click.pass_obj
def set_(cli: Cli, app: str) -> None:
    """Put lines of your own (standard input) into an app's server block: for administrators. Nginx tests them first."""
    text = "" if os.isatty(cli.console.stdin) else cli.console.read_all()
    if not text.strip():
        raise InvalidInput(
            "no lines come on standard input, and nothing was changed",
            hint=f"nginx:set-snippet {app} < snippet.conf, or take them away: nginx:clear-snippet {app}",
        )
    cli.client.request("PUT", app_path(app, "nginx", "snippet"), {"text": text})
    cli.console.print(f"-----> The server block of {app} has your lines; see it: nginx:show-config {app}")


@root.command("nginx:clear-snippet", examples=("nginx:clear-snippet blog",))
@app_argument
@click.pass_obj
def clear(cli: Cli, app: str) -> None:
    """Take them away."""
    cli.client.request("PUT", app_path(app, "nginx", "snippet"), {"text": ""})
    cli.console.print(f"-----> The server block of {app} has no lines of your own any more")
