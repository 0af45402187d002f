"""keys:*"""

from __future__ import annotations

from urllib.parse import quote

import click

from paasd.cli.framework import Cli, json_option
from paasd.cli.root import root


@root.command("keys:add", examples=("keys:add laptop < ~/.ssh/id_ed25519.pub",))
@click.argument("name")
@click.pass_obj
def add(cli: Cli, name: str) -> None:
    """Let the owner of a public key (given on standard input) push and operate."""
    key = cli.client.request("POST", "/keys", {"name": name, "public_key": cli.console.read_all()})
    cli.console.print(f"-----> Added key {name} ({key['fingerprint']})")


@root.command("keys:list", examples=("keys:list",))
@json_option
@click.pass_obj
def list_keys(cli: Cli, as_json: bool) -> None:
    """List the keys."""
    keys = cli.client.get("/keys")["items"]
    if as_json:
        return cli.console.json(keys)
    rows = [(key["name"], key["type"], key["fingerprint"], key["created_at"]) for key in keys]
    cli.console.table(("NAME", "TYPE", "FINGERPRINT", "ADDED"), rows)


@root.command("keys:remove", examples=("keys:remove laptop",))
@click.argument("name")
@click.pass_obj
def remove(cli: Cli, name: str) -> None:
    """Remove a key and end its open sessions."""
    cli.client.request("DELETE", f"/keys/{quote(name, safe='')}")
    cli.console.print(f"-----> Removed key {name}")
