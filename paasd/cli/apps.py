"""apps:*"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root


@root.command("apps:create", examples=("apps:create blog", "apps:create shop-api --project shop --environment staging"))
@click.argument("app")
@click.option("--project", help="Project whose private network the app joins (default: one of its own name).")
@click.option("--environment", default="production", help="production, staging or preview.")
@click.pass_obj
def create(cli: Cli, app: str, project: str | None, environment: str) -> None:
    """Create an app."""
    created = cli.client.request("POST", "/apps", {"name": app, "project": project, "environment": environment})
    cli.console.print(f"-----> Created {app}")
    cli.console.print(f"       Push to it with: git push <remote> main; it will be at {created['url']}")


@root.command("apps:list", examples=("apps:list", "apps:list --json"))
@json_option
@click.pass_obj
def list_apps(cli: Cli, as_json: bool) -> None:
    """List the apps."""
    apps = cli.client.get("/apps")["items"]
    if as_json:
        return cli.console.json(apps)
    cli.console.heading("My Apps")
    for app in apps:
        cli.console.print(app["name"] + (" (asleep)" if app["asleep"] else ""))


@root.command("apps:info", examples=("apps:info blog",))
@app_argument
@json_option
@click.pass_obj
def info(cli: Cli, app: str, as_json: bool) -> None:
    """Show one app."""
    found = cli.client.get(app_path(app))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} app information")
    cli.console.facts(
        {
            "URL": found["url"],
            "Release": found["release"] or "none yet",
            "Project": found["project"],
            "Environment": found["environment"],
            "Deploy branch": found["deploy_branch"] or "the first one pushed",
            "Stopped": "yes" if found["stopped"] else "no",
            "Asleep": "yes" if found["asleep"] else "no",
            "Locked": found["locked"] or "no",
            "Created": found["created_at"],
        }
    )


@root.command("apps:rename", examples=("apps:rename blog journal",))
@app_argument
@click.argument("name")
@click.pass_obj
def rename(cli: Cli, app: str, name: str) -> None:
    """Give an app another name; its host name changes with it."""
    renamed = cli.stream("PATCH", app_path(app), {"name": name})
    cli.console.print(f"-----> Renamed {app} to {name}, now at {renamed['url']}")


@root.command("apps:clone", examples=("apps:clone blog blog-staging",))
@app_argument
@click.argument("name")
@click.pass_obj
def clone(cli: Cli, app: str, name: str) -> None:
    """Copy an app's code, config vars and live image to a new app."""
    cli.stream("POST", app_path(app, "clone"), {"name": name})


@root.command("apps:destroy", examples=("apps:destroy blog", "apps:destroy blog --force"))
@app_argument
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def destroy(cli: Cli, app: str, force: bool) -> None:
    """Destroy an app with its code, config vars, releases and images."""
    cli.client.get(app_path(app))
    cli.confirm(app, force, f"WARNING: this destroys {app} and everything it has.")
    cli.client.request("DELETE", app_path(app))
    cli.console.print(f"-----> Destroyed {app}")


@root.command("apps:lock", examples=("apps:lock blog", "apps:lock blog database is being moved"))
@app_argument
@click.argument("reason", nargs=-1)
@click.pass_obj
def lock(cli: Cli, app: str, reason: tuple[str, ...]) -> None:
    """Refuse pushes, rollbacks and new config vars until apps:unlock; what is live stays."""
    cli.client.request("PUT", app_path(app, "lock"), {"reason": " ".join(reason) or "no reason was given"})
    cli.console.print(f"-----> Locked {app}; unlock it with: apps:unlock {app}")


@root.command("apps:unlock", examples=("apps:unlock blog",))
@app_argument
@click.pass_obj
def unlock(cli: Cli, app: str) -> None:
    """Take deployments of an app again."""
    cli.client.request("DELETE", app_path(app, "lock"))
    cli.console.print(f"-----> Unlocked {app}")


@root.command("git:set", examples=("git:set blog deploy-branch release",))
@app_argument
@click.argument("setting", type=click.Choice(["deploy-branch"]))
@click.argument("value")
@click.pass_obj
def git_set(cli: Cli, app: str, setting: str, value: str) -> None:
    """Set which branch of an app is deployed."""
    cli.stream("PATCH", app_path(app), {"deploy_branch": value})
    cli.console.print(f"-----> {app} now deploys the branch {value}")
