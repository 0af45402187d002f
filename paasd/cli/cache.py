"""cache:report, cache:purge"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("cache:report", examples=("cache:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show how often the edge answered by itself, out of its cache, since it started."""
    found = cli.client.get(app_path(app, "cache"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} cache")
    asked = found["hits"] + found["misses"]
    cli.console.facts(
        {
            "Cache": "on" if found["on"] else f"off; switch it on with: edge:set {app} cache on",
            "Hit ratio": "-"
            if found["ratio"] is None
            else f"{found['ratio']:.1%} of {asked} requests that it may answer",
            "Bytes from it": found["bytes_saved"],
            "Purges": len(found["purges"]) or "none",
        }
    )
    if found["purges"]:
        cli.console.table(("PATH", "PURGED"), [(each["path"], each["purged_at"]) for each in found["purges"]])


@root.command("cache:purge", examples=("cache:purge blog", "cache:purge blog /news '/img/*'"))
@app_argument
@click.argument("paths", nargs=-1)
@click.pass_obj
def purge(cli: Cli, app: str, paths: tuple[str, ...]) -> None:
    """Have the edge forget what it keeps of an app: everything, or paths with all their queries; a * at the end stands
    for anything."""
    found = cli.client.request("POST", app_path(app, "cache", "purges"), {"paths": list(paths)})
    what = "everything" if found["paths"] == ["/*"] else ", ".join(found["paths"])
    cli.console.print(f"-----> The edge asks {app} anew for {what}")
