"""ps:*, enter"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option, process_pairs
from paasd.cli.root import root
from paasd.cli.terminal import talk
from paasd.errors import InvalidInput


@root.command("ps:report", examples=("ps:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show an app's instances and their state."""
    found = cli.client.get(app_path(app, "ps"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} ps information")
    cli.console.facts(
        {
            "Release": found["release"] or "none yet",
            "Stopped": "yes" if found["stopped"] else "no",
            "Asleep": "yes" if found["asleep"] else "no",
            "Scale": " ".join(f"{name}={count}" for name, count in found["scale"].items()) or "web=1",
        }
    )
    if found["instances"]:
        columns = ("INSTANCE", "STATE", "DUTY", "ADDRESS", "RESTARTS", "SINCE")
        cli.console.table(columns, [_row(instance) for instance in found["instances"]])


@root.command("ps:inspect", examples=("ps:inspect blog", "ps:inspect blog worker.2"))
@app_argument
@click.argument("instance", default="web")
@click.pass_obj
def inspect(cli: Cli, app: str, instance: str) -> None:
    """Print what the engine knows of an instance as JSON; values of environment variables are masked."""
    cli.console.json(cli.client.get(app_path(app, "ps", "instances", instance)))


@root.command(
    "enter",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=("enter blog", "enter blog worker.2", "enter blog web.1 ls -l /app"),
)
@app_argument
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[INSTANCE] [COMMAND]...")
@click.pass_obj
def enter(cli: Cli, app: str, words: tuple[str, ...]) -> int:
    """Open a shell, or run a command, inside a running instance (the first of web by default)."""
    return talk(cli, app_path(app, "enter"), words)


@root.command("ps:scale", examples=("ps:scale blog", "ps:scale blog web=2 worker=1"))
@app_argument
@click.argument("counts", nargs=-1)
@json_option
@click.pass_obj
def scale(cli: Cli, app: str, counts: tuple[str, ...], as_json: bool) -> None:
    """Show or set how many instances of each process type run."""
    if counts:
        cli.console.print(f"-----> Scaling {app} processes: {' '.join(counts)}")
        cli.stream("PUT", app_path(app, "ps", "scale"), {"scale": process_pairs(counts)})
        return
    found = cli.client.get(app_path(app, "ps"))["scale"]
    if as_json:
        return cli.console.json([{"process_type": name, "quantity": count} for name, count in found.items()])
    cli.console.print(f"-----> Scaling for {app}")
    cli.console.print("proctype: qty")
    cli.console.print("--------: ---")
    for name, count in (found or {"web": 1}).items():
        cli.console.print(f"{name}:  {count}")


@root.command("ps:restart", examples=("ps:restart blog",))
@app_argument
@click.pass_obj
def restart(cli: Cli, app: str) -> None:
    """Replace all instances by new ones, without downtime."""
    cli.stream("POST", app_path(app, "ps", "restart"))


@root.command("ps:stop", examples=("ps:stop blog",))
@app_argument
@click.pass_obj
def stop(cli: Cli, app: str) -> None:
    """Stop all instances; visitors see a page that says so."""
    cli.console.print(f"-----> Stopping {app}")
    cli.stream("POST", app_path(app, "ps", "stop"))


@root.command("ps:start", examples=("ps:start blog",))
@app_argument
@click.pass_obj
def start(cli: Cli, app: str) -> None:
    """Start a stopped app."""
    cli.stream("POST", app_path(app, "ps", "start"))


@root.command("ps:forward", examples=("ps:forward blog", "ps:forward blog web.2", "ps:forward blog worker.1 5000"))
@app_argument
@click.argument("words", nargs=-1, metavar="[INSTANCE] [PORT]")
@click.pass_obj
def forward(cli: Cli, app: str, words: tuple[str, ...]) -> int:
    """Connect standard input and output to the port of an app's instance, for programs such as socat. Where the
    embedded SSH server runs, ssh -L 8080:APP:PORT does the same for browsers."""
    ports = [word for word in words if word.isdigit()]
    titles = [word for word in words if not word.isdigit()]
    if len(ports) > 1 or len(titles) > 1:
        raise InvalidInput("name at most an instance and a port", hint=f"For example: ps:forward {app} web.2 5000")
    query = {"instance": titles[0] if titles else None, "port": ports[0] if ports else None}
    return talk(cli, app_path(app, "forward"), (), query)


def _row(instance: dict[str, Any]) -> tuple[Any, ...]:
    state = instance["state"]
    if state == "crashing":
        memory = ", out of memory" if instance["out_of_memory"] else ""
        state = f"crashing (last exit {instance['exit_code']}{memory})"
    return (
        instance["instance"],
        state,
        instance["duty"],
        instance["address"],
        instance["restarts"],
        instance["started_at"],
    )
