"""routes:*"""

from __future__ import annotations

import click

from paasd.cli.framework import AppName, Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("routes:add", examples=("routes:add shop /api shop-api", "routes:add shop /api shop-api --strip"))
@app_argument
@click.argument("prefix")
@click.argument("other", type=AppName())
@click.option("--strip", is_flag=True, help="Take the prefix off the path that the other app sees.")
@click.pass_obj
def add(cli: Cli, app: str, prefix: str, other: str, strip: bool) -> None:
    """Have another app of the same project answer a path of an app, and all below it; the longest prefix wins."""
    body = {"prefix": prefix, "app": other, "strip": strip}
    found = cli.client.request("POST", app_path(app, "routes"), body)
    stripped = f", without {found['prefix']}" if found["strip"] else ""
    cli.console.print(f"-----> {found['prefix']} of {app} goes to {found['app']}{stripped}")


@root.command("routes:remove", examples=("routes:remove shop /api",))
@app_argument
@click.argument("prefix")
@click.pass_obj
def remove(cli: Cli, app: str, prefix: str) -> None:
    """Have an app answer a path itself again."""
    found = cli.client.request("DELETE", app_path(app, "routes"), query={"prefix": prefix})
    cli.console.print(f"-----> {found['prefix']} of {app} is its own again")


@root.command("routes:list", examples=("routes:list shop",))
@app_argument
@json_option
@click.pass_obj
def list_(cli: Cli, app: str, as_json: bool) -> None:
    """List the paths of an app that other apps answer, longest first."""
    found = cli.client.get(app_path(app, "routes"))["items"]
    if as_json:
        return cli.console.json(found)
    cli.console.table(
        ("PATH", "APP", "STRIPPED"), [(r["prefix"], r["app"], "yes" if r["strip"] else "no") for r in found]
    )
