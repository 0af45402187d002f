"""resource:*"""

from __future__ import annotations

from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.errors import InvalidInput

_process_type = click.option("--process-type", metavar="TYPE", help="Only for web, worker, …; run and cron count too.")


def _change(cli: Cli, app: str, process_type: str | None, values: dict[str, str | None]) -> None:
    given = {kind: value for kind, value in values.items() if value is not None}
    if not given:
        raise InvalidInput("name what to set", hint=f"For example: resource:limit {app} --memory 1g --cpu 0.5")
    prefix = f"{process_type}." if process_type else ""
    body = {"settings": {prefix + kind: value for kind, value in given.items()}}
    cli.client.request("PATCH", app_path(app, "resources"), body)
    listed = ", ".join(f"{kind} {value}" for kind, value in given.items())
    cli.console.print(f"-----> {process_type or 'Every process type'} of {app} gets: {listed}")
    _say_when(cli, app)


def _say_when(cli: Cli, app: str) -> None:
    cli.console.print(f"       In force from the next deployment on, or now with: ps:restart {app}")


@root.command(
    "resource:limit",
    examples=("resource:limit blog --memory 1g --cpu 0.5", "resource:limit blog --process-type worker --memory 2g"),
)
@app_argument
@_process_type
@click.option("--memory", metavar="SIZE", help="512m, 1g; a plain number is megabytes.")
@click.option("--cpu", metavar="CORES", help="0.5, 2.")
@click.option("--pids", metavar="N", help="Processes and threads.")
@click.pass_obj
def limit(cli: Cli, app: str, process_type: str | None, memory: str | None, cpu: str | None, pids: str | None) -> None:
    """Limit what an instance may use, of all process types or of one."""
    _change(cli, app, process_type, {"memory": memory, "cpu": cpu, "pids": pids})


@root.command("resource:reserve", examples=("resource:reserve blog --process-type web --memory 256m",))
@app_argument
@_process_type
@click.option("--memory", metavar="SIZE", help="256m, 1g; a plain number is megabytes.")
@click.pass_obj
def reserve(cli: Cli, app: str, process_type: str | None, memory: str | None) -> None:
    """Reserve memory for each instance, for when the box runs short of it."""
    _change(cli, app, process_type, {"reserve-memory": memory})


def _clear(cli: Cli, app: str, process_type: str | None, what: str) -> None:
    cli.client.request("DELETE", app_path(app, "resources"), query={"what": what, "process_type": process_type})
    cli.console.print(f"-----> Cleared {what} of {process_type or 'all process types'} of {app}")
    _say_when(cli, app)


@root.command("resource:limit-clear", examples=("resource:limit-clear blog --process-type worker",))
@app_argument
@_process_type
@click.pass_obj
def limit_clear(cli: Cli, app: str, process_type: str | None) -> None:
    """Let the box's limits hold again, for one process type or for all."""
    _clear(cli, app, process_type, "limits")


@root.command("resource:reserve-clear", examples=("resource:reserve-clear blog",))
@app_argument
@_process_type
@click.pass_obj
def reserve_clear(cli: Cli, app: str, process_type: str | None) -> None:
    """Reserve nothing any more, for one process type or for all."""
    _clear(cli, app, process_type, "reservations")


@root.command("resource:report", examples=("resource:report blog",))
@app_argument
@json_option
@click.pass_obj
def report(cli: Cli, app: str, as_json: bool) -> None:
    """Show what instances of each process type may use, and what says so."""
    found = cli.client.get(app_path(app, "resources"))
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"{app} resources")
    rows = [
        (name, _size(kinds["memory"]), _cell(kinds["cpu"]), _cell(kinds["pids"]), _size(kinds["reserve-memory"]))
        for name, kinds in found["process_types"].items()
    ]
    cli.console.table(("PROCESS TYPE", "MEMORY", "CPU", "PIDS", "RESERVED MEMORY"), rows)
    cli.console.print(f"At most {_megabytes(found['maximum']['memory'])} and {found['maximum']['cpu']:g} cores each.")


def _size(found: dict[str, Any]) -> str:
    return f"{_megabytes(found['value'])} ({found['origin']})" if found["value"] else "-"


def _cell(found: dict[str, Any]) -> str:
    return f"{found['value']:g} ({found['origin']})"


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:.4g} MiB" if size < 1024**3 else f"{size / 1024**3:.4g} GiB"
