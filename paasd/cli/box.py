"""report, version, nginx:show-config, cleanup, completion"""

from __future__ import annotations

import click

from paasd import __version__
from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("report", examples=("report blog", "report blog --json"))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show everything about an app."""
    found = {
        "app": cli.client.get(app_path(app)),
        "ps": cli.client.get(app_path(app, "ps")),
        "checks": cli.client.get(app_path(app, "checks")),
        "builds": cli.client.get(app_path(app, "builds"), limit=5)["items"],
        "deployments": cli.client.get(app_path(app, "deployments"), limit=5)["items"],
    }
    if as_json:
        return cli.console.json(found)
    info, ps = found["app"], found["ps"]
    cli.console.heading(f"{app} report")
    cli.console.facts(
        {
            "URL": info["url"],
            "Domains": ", ".join(info["domains"]),
            "Release": info["release"] or "none yet",
            "Deploy branch": info["deploy_branch"] or "the first one pushed",
            "Stopped": "yes" if info["stopped"] else "no",
            "Scale": " ".join(f"{name}={count}" for name, count in ps["scale"].items()) or "web=1",
            **{f"Instance {i['instance']}": f"{i['state']} at {i['address']}" for i in ps["instances"]},
            **{f"Build {b['number']}": f"{b['status']} {b['reason']}".strip() for b in found["builds"]},
            **{
                f"Deployment {d['number']}": f"{d['release']} {d['status']} {d['reason']}" for d in found["deployments"]
            },
        }
    )


@root.command("version", examples=("version",))
@json_option
@click.pass_obj
def version(cli: Cli, as_json: bool) -> None:
    """Print the versions of this command and of the daemon."""
    found = {"paasd": __version__, "daemon": cli.client.get("/version")["version"]}
    if as_json:
        return cli.console.json(found)
    cli.console.print(f"paasd {found['paasd']} (daemon {found['daemon']})")


@root.command("nginx:show-config", examples=("nginx:show-config blog",))
@app_argument
@click.pass_obj
def nginx_config(cli: Cli, app: str) -> None:
    """Print an app's generated Nginx server block."""
    cli.console.print(cli.client.get(app_path(app, "nginx"))["text"])


@root.command("cleanup", examples=("cleanup", "cleanup --all"))
@click.option("--all", "everything", is_flag=True, help="The whole build cache: the next builds take longer.")
@click.pass_obj
def cleanup(cli: Cli, everything: bool) -> None:
    """Remove images that no release within reach of a rollback needs, and old build cache over build.cache_limit."""
    found = cli.client.stream("POST", "/cleanup", {"all": everything}, cli.console.print)
    removed = found["removed_images"]
    cli.console.print(f"-----> Removed {len(removed)} images")
    for image in removed:
        cli.console.print(f"       {image}")
    cli.console.print(f"-----> Removed {found['freed_cache'] / 1024**2:.0f} MiB of build cache")
