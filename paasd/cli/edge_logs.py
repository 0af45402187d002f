"""nginx:access-logs, nginx:error-logs"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path
from paasd.cli.root import root

_follow = click.option("-t", "--tail", "follow", is_flag=True, help="Keep printing new lines.")
_number = click.option("-n", "--num", default=100, show_default=True, help="Lines to begin with.")


@root.command("nginx:access-logs", examples=("nginx:access-logs blog -t", "edge:set blog access-log on"))
@app_argument
@_follow
@_number
@click.pass_obj
def access(cli: Cli, app: str, follow: bool, num: int) -> None:
    """Print requests of an app, a JSON object a line, if they are logged: edge:set APP access-log on."""
    query = {"tail": num, "follow": int(follow)}
    for line in cli.client.messages("GET", app_path(app, "access-logs"), query=query):
        cli.console.json_line(line)


@root.command("nginx:error-logs", examples=("nginx:error-logs blog", "nginx:error-logs blog -n 500"))
@app_argument
@_follow
@_number
@click.pass_obj
def error(cli: Cli, app: str, follow: bool, num: int) -> None:
    """Print what Nginx's error log says of an app."""
    query = {"tail": num, "follow": int(follow)}
    for line in cli.client.messages("GET", app_path(app, "error-logs"), query=query):
        cli.console.print(line["text"])
