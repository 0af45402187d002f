"""deployments, deployments:info, deploys:*, deploy:*, builds:deploy, canary:*"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root

_windows = click.option("--ignore-windows", is_flag=True, help="Also outside of the app's deploy windows.")


@root.command("deployments", examples=("deployments blog",))
@app_argument
@click.option("-n", "--num", default=20, show_default=True, help="How many.")
@json_option
@click.pass_obj
def deployments(cli: Cli, app: str, num: int, as_json: bool) -> None:
    """List an app's deployments, newest first."""
    found = cli.client.get(app_path(app, "deployments"), limit=num)["items"]
    if as_json:
        return cli.console.json(found)
    rows = [
        (d["number"], d["release"] or "", d["status"], d["phase"], d["created_by"], d["created_at"], d["reason"])
        for d in found
    ]
    cli.console.table(("DEPLOYMENT", "RELEASE", "STATUS", "PHASE", "BY", "AT", "REASON"), rows)


@root.command("deployments:info", examples=("deployments:info blog", "deployments:info blog 7 --json"))
@app_argument
@click.argument("number", required=False, type=click.IntRange(min=1))
@json_option
@click.pass_obj
def info(cli: Cli, app: str, number: int | None, as_json: bool) -> None:
    """Show a deployment (the newest by default), with the times of its phases."""
    found = cli.client.get(app_path(app, "deployments", number or 0))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} deployment {found['number']}")
    cli.console.facts(
        {
            "Release": f"{found['release']} ({found['description']})" if found["release"] else "none yet",
            "Strategy": found["strategy"],
            "Status": found["status"],
            "Reason": found["reason"] or "-",
            "By": found["created_by"],
            "Watched until": found["watched_until"] or "-",
        }
    )
    rows = [(p["phase"], p["at"], "" if p["seconds"] is None else f"{p['seconds']:.2f} s") for p in found["phases"]]
    cli.console.table(("PHASE", "AT", "TOOK"), rows)


@root.command("deploys:cancel", examples=("deploys:cancel blog",))
@app_argument
@click.pass_obj
def cancel(cli: Cli, app: str) -> None:
    """End what is being deployed: a push, a rollback, a change of config vars. What is live stays."""
    cli.client.request("DELETE", app_path(app, "deployments"))
    cli.console.print(f"-----> Cancelled the deployment of {app}")


@root.command("deploys:retry", examples=("deploys:retry blog", "deploys:retry blog 7"))
@app_argument
@click.argument("number", required=False, type=click.IntRange(min=1))
@_windows
@click.pass_obj
def retry(cli: Cli, app: str, number: int | None, ignore_windows: bool) -> None:
    """Deploy the release of a failed deployment (the newest by default) again, without building it."""
    body = {"retry": number or 0, "ignore_windows": ignore_windows}
    cli.stream("POST", app_path(app, "deployments"), body)


@root.command("builds:deploy", examples=("builds:deploy blog 12",))
@app_argument
@click.argument("number", type=click.IntRange(min=1))
@_windows
@click.pass_obj
def deploy_build(cli: Cli, app: str, number: int, ignore_windows: bool) -> None:
    """Deploy an old build with the present config vars, without building it again."""
    cli.stream("POST", app_path(app, "deployments"), {"build": number, "ignore_windows": ignore_windows})


@root.command(
    "deploy:set",
    examples=(
        "deploy:set blog strategy recreate",
        "deploy:set blog drain 2m",
        "deploy:set blog windows Mon-Fri 09:00-17:00 Europe/Berlin",
        "deploy:set blog watch ''",
    ),
)
@app_argument
@click.argument("key")
@click.argument("value", nargs=-1)
@click.pass_obj
def set_(cli: Cli, app: str, key: str, value: tuple[str, ...]) -> None:
    """Set how an app is deployed from the next deployment on; without a value the box's own holds again."""
    text = " ".join(value)
    cli.client.request("PATCH", app_path(app, "deploy-settings"), {"settings": {key: text or None}})
    cli.console.print(f"-----> Set {key} of {app} to {text}" if text else f"-----> Unset {key} of {app}")


@root.command("deploy:report", examples=("deploy:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show how an app is deployed, and what says so. Times are seconds."""
    found = cli.client.get(app_path(app, "deploy-settings"))["settings"]
    if as_json:
        return cli.console.json(found)
    cli.console.settings(found)


@root.command("canary:promote", examples=("canary:promote blog",))
@app_argument
@click.pass_obj
def promote_canary(cli: Cli, app: str) -> None:
    """Make the canary under way the live release now, without its remaining steps."""
    cli.client.request("POST", app_path(app, "canary"), {"verdict": "promote"})
    cli.console.print(f"-----> The canary of {app} takes over")


@root.command("canary:abort", examples=("canary:abort blog",))
@app_argument
@click.pass_obj
def abort_canary(cli: Cli, app: str) -> None:
    """Give the canary under way up; all requests go to the old release again."""
    cli.client.request("POST", app_path(app, "canary"), {"verdict": "abort"})
    cli.console.print(f"-----> The canary of {app} is given up")


@root.command("canary:steps", examples=("canary:steps blog 5,25,50,100", "canary:steps blog 10,100 --time 5m"))
@app_argument
@click.argument("steps")
@click.option("--time", help="Time of each step.")
@click.pass_obj
def canary_steps(cli: Cli, app: str, steps: str, time: str | None) -> None:
    """Deploy an app by canary from now on, with these shares of the requests in percent."""
    settings = {"strategy": "canary", "canary-steps": steps, **({"canary-time": time} if time else {})}
    cli.client.request("PATCH", app_path(app, "deploy-settings"), {"settings": settings})
    cli.console.print(f"-----> {app} is deployed by canary from the next deployment on: {steps} %")
