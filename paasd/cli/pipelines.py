"""pipelines, pipelines:*, promote"""

from __future__ import annotations

import click

from paasd.cli.framework import AppName, Cli, app_argument, app_path, json_option
from paasd.cli.root import root

_pipeline = click.argument("pipeline")


@root.command("pipelines", examples=("pipelines",))
@json_option
@click.pass_obj
def pipelines(cli: Cli, as_json: bool) -> None:
    """List the pipelines."""
    found = cli.client.get("/pipelines")["items"]
    if as_json:
        return cli.console.json(found)
    cli.console.table(("PIPELINE", "APPS"), [(p["name"], " → ".join(a["app"] for a in p["apps"])) for p in found])


@root.command("pipelines:create", examples=("pipelines:create blog",))
@_pipeline
@click.pass_obj
def create(cli: Cli, pipeline: str) -> None:
    """Create a pipeline: apps that an image moves along, from staging to production."""
    cli.client.request("POST", "/pipelines", {"name": pipeline})
    cli.console.print(f"-----> Created the pipeline {pipeline}")


@root.command("pipelines:info", examples=("pipelines:info blog",))
@_pipeline
@json_option
@click.pass_obj
def info(cli: Cli, pipeline: str, as_json: bool) -> None:
    """Show the apps of a pipeline, in order."""
    found = cli.client.get(f"/pipelines/{pipeline}")
    if as_json:
        return cli.console.json(found)
    rows = [(a["environment"], a["app"], a["release"] or "not deployed") for a in found["apps"]]
    cli.console.table(("ENVIRONMENT", "APP", "RELEASE"), rows)


@root.command(
    "pipelines:add", examples=("pipelines:add shop shop-staging staging", "pipelines:add shop shop production")
)
@_pipeline
@click.argument("app", type=AppName())
@click.argument("environment", type=click.Choice(["preview", "staging", "production"]))
@click.pass_obj
def add(cli: Cli, pipeline: str, app: str, environment: str) -> None:
    """Put an app into a pipeline; its environment says where."""
    cli.client.request("POST", f"/pipelines/{pipeline}/apps", {"app": app, "environment": environment})
    cli.console.print(f"-----> {app} is {environment} in the pipeline {pipeline}")


@root.command("pipelines:remove", examples=("pipelines:remove blog blog-staging",))
@_pipeline
@click.argument("app", type=AppName())
@click.pass_obj
def remove(cli: Cli, pipeline: str, app: str) -> None:
    """Take an app out of a pipeline."""
    cli.client.request("DELETE", f"/pipelines/{pipeline}/apps/{app}")
    cli.console.print(f"-----> {app} is not in the pipeline {pipeline} any more")


@root.command("pipelines:destroy", examples=("pipelines:destroy blog",))
@_pipeline
@click.pass_obj
def destroy(cli: Cli, pipeline: str) -> None:
    """Destroy a pipeline; its apps stay."""
    cli.client.request("DELETE", f"/pipelines/{pipeline}")
    cli.console.print(f"-----> Destroyed the pipeline {pipeline}")


@root.command("promote", examples=("promote blog-staging", "promote blog-staging blog"))
@app_argument
@click.argument("targets", nargs=-1, type=AppName())
@click.option("--ignore-windows", is_flag=True, help="Also outside of their deploy windows.")
@click.pass_obj
def promote(cli: Cli, app: str, targets: tuple[str, ...], ignore_windows: bool) -> None:
    """Deploy an app's live image, unbuilt, to the next apps of its pipeline or to those named."""
    cli.stream("POST", app_path(app, "promote"), {"to": list(targets), "ignore_windows": ignore_windows})
