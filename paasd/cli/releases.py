"""releases, rollback"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput

_count = click.option("-n", "--num", default=20, show_default=True, help="How many.")


@root.command("releases", examples=("releases blog",))
@app_argument
@_count
@json_option
@click.pass_obj
def releases(cli: Cli, app: str, num: int, as_json: bool) -> None:
    """List an app's releases, newest first."""
    found = cli.client.get(app_path(app, "releases"), limit=num)["items"]
    if as_json:
        return cli.console.json(found)
    rows = [
        (r["version"], r["description"], r["created_by"], r["created_at"], "live" if r["live"] else "") for r in found
    ]
    cli.console.table(("VERSION", "DESCRIPTION", "BY", "AT", ""), rows)


@root.command("releases:info", examples=("releases:info blog v12",))
@app_argument
@click.argument("version")
@json_option
@click.pass_obj
def release_info(cli: Cli, app: str, version: str, as_json: bool) -> None:
    """Show one release."""
    found = cli.client.get(app_path(app, "releases", number_of(version)))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} {found['version']}")
    cli.console.facts(
        {
            "Description": found["description"],
            "By": found["created_by"],
            "At": found["created_at"],
            "Live": "yes" if found["live"] else "no",
            "Image": found["image"],
            **{f"Process {name}": command or "(the image's own)" for name, command in found["process_types"].items()},
            "Config vars": ", ".join(found["config"]) or "none",
        }
    )


@root.command("rollback", examples=("rollback blog", "rollback blog v12"))
@app_argument
@click.argument("version", required=False)
@click.pass_obj
def rollback(cli: Cli, app: str, version: str | None) -> None:
    """Make the previous release (or vN) live again: image, config vars and process types."""
    cli.stream("POST", app_path(app, "rollback"), {"release": number_of(version) if version else None})


@root.command("releases:diff", examples=("releases:diff blog v11 v12",))
@app_argument
@click.argument("old")
@click.argument("new")
@json_option
@click.pass_obj
def diff(cli: Cli, app: str, old: str, new: str, as_json: bool) -> None:
    """Show what a release changed. Config vars are named; their values stay hidden."""
    found = cli.client.get(app_path(app, "releases", number_of(old), "diff", number_of(new)))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} {found['from']} → {found['to']}")
    for line in found["changes"] or ["nothing differs"]:
        cli.console.print(f"       {line}")


def number_of(version: str) -> int:
    """`v12` or `12`. Raises InvalidInput."""
    digits = version.removeprefix("v")
    if not digits.isascii() or not digits.isdigit():
        raise InvalidInput(
            f"{version!r} is not a release", hint="Use a version such as v12; list them with: releases APP"
        )
    return int(digits)
