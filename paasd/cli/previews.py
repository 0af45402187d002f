"""previews, previews:*"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("previews", examples=("previews blog",))
@app_argument
@json_option
@click.pass_obj
def previews(cli: Cli, app: str, as_json: bool) -> None:
    """List the previews of an app, and how they are made."""
    found = cli.client.get(app_path(app, "previews"))
    if as_json:
        return cli.console.json(found)
    settings = found["settings"]
    if not settings["enabled"]:
        cli.console.print(f"-----> Previews of {app} are off; turn them on with: previews:enable {app}")
    else:
        cli.console.heading(
            f"{app} previews (for {float(settings['ttl']) / 86400:g} days, at most {settings['limit']})"
        )
    rows = [(p["branch"], p["app"], p["release"] or "not deployed", p["url"], p["expires_at"]) for p in found["items"]]
    cli.console.table(("BRANCH", "APP", "RELEASE", "URL", "EXPIRES"), rows)


@root.command(
    "previews:enable", examples=("previews:enable blog", "previews:enable blog --ttl 3d --limit 10 --inherit API_URL")
)
@app_argument
@click.option("--ttl", help="How long a preview lives after the last push to it (7d).")
@click.option("--limit", help="How many there may be at a time (5).")
@click.option("--inherit", help="Config vars that previews take over, separated by commas.")
@click.pass_obj
def enable(cli: Cli, app: str, ttl: str | None, limit: str | None, inherit: str | None) -> None:
    """Give every other branch that is pushed an app of its own for a while."""
    options = {"ttl": ttl, "limit": limit, "inherit": inherit}
    settings = {"enabled": "true", **{key: value for key, value in options.items() if value is not None}}
    found = cli.client.request("PATCH", app_path(app, "previews"), {"settings": settings})
    cli.console.print(f"-----> Branches pushed to {app} beside its deploy branch become previews")
    inherited = ", ".join(found["inherits"])
    cli.console.print(f"       They take over these config vars: {inherited or 'none (name them with --inherit)'}")


@root.command("previews:disable", examples=("previews:disable blog",))
@app_argument
@click.pass_obj
def disable(cli: Cli, app: str) -> None:
    """Make no new previews; those there are live on until they expire."""
    cli.client.request("PATCH", app_path(app, "previews"), {"settings": {"enabled": None}})
    cli.console.print(f"-----> No new previews of {app}")


@root.command("previews:destroy", examples=("previews:destroy blog feature-x",))
@app_argument
@click.argument("branch")
@click.pass_obj
def destroy(cli: Cli, app: str, branch: str) -> None:
    """Destroy the preview of a branch; the branch stays."""
    gone = cli.client.request("DELETE", app_path(app, "previews"), {"branch": branch})
    cli.console.print(f"-----> Destroyed {gone['app']}")
