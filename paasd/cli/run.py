"""run, run:*"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from paasd.cli.framework import Cli, F, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.cli.terminal import talk
from paasd.errors import InvalidInput

_WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _options(command: F) -> F:
    """Those of commands that run something."""
    env = click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="A variable for this command only.")
    timeout = click.option("--timeout", metavar="TIME", help="30s, 5m, 2h; what takes longer is ended.")
    words = click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
    decorate: Callable[[F], F] = lambda f: env(timeout(app_argument(words(f))))  # noqa: E731
    return decorate(command)


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    """Raises InvalidInput."""
    for pair in pairs:
        if "=" not in pair:
            raise InvalidInput(f"{pair!r} is not of the form NAME=VALUE", hint="For example: run --env DEBUG=1 blog sh")
    return dict(pair.split("=", 1) for pair in pairs)


@root.command(
    "run",
    context_settings=_WORDS,
    examples=(
        "run blog python manage.py migrate",
        "run blog sh",
        "run blog console",
        "run --env DEBUG=1 --timeout 10m blog python report.py",
    ),
)
@_options
@click.pass_obj
def run(cli: Cli, app: str, command: tuple[str, ...], env: tuple[str, ...], timeout: str | None) -> int:
    """Run a command in a new container of the live release; interactive on a terminal."""
    variables = _variables(env)
    begin = {"env": variables} if variables else None
    return talk(cli, app_path(app, "run"), command, {"timeout": timeout}, begin)


@root.command(
    "run:detached",
    context_settings=_WORDS,
    examples=("run:detached blog python import.py", "run:detached --timeout 2h blog rake db:reindex"),
)
@_options
@json_option
@click.pass_obj
def detached(
    cli: Cli, app: str, command: tuple[str, ...], env: tuple[str, ...], timeout: str | None, as_json: bool
) -> None:
    """Run a command that goes on without you, and without paasd; its output is kept."""
    body = {"command": list(command), "env": _variables(env), "timeout": timeout}
    found = cli.client.request("POST", app_path(app, "runs"), body)
    if as_json:
        return cli.console.json(found)
    cli.console.print(f"-----> Run {found['number']} of {app} has started")
    cli.console.print(f"       See what it writes: run:logs {app} {found['number']} -t")


@root.command("run:list", examples=("run:list blog", "run:list blog --running"))
@app_argument
@click.option("--running", is_flag=True, help="Only those that run now.")
@click.option("-n", "--num", default=20, show_default=True, help="How many.")
@json_option
@click.pass_obj
def listing(cli: Cli, app: str, running: bool, num: int, as_json: bool) -> None:
    """List an app's one-off commands, newest first: those that run, and how the last ones ended."""
    query = {"running": 1} if running else {"limit": num}
    found = cli.client.get(app_path(app, "runs"), **query)["items"]
    if as_json:
        return cli.console.json(found)
    columns = ("RUN", "KIND", "STATUS", "RELEASE", "COMMAND", "BY", "STARTED", "TOOK", "REASON")
    cli.console.table(columns, [run_row(run) for run in found])


@root.command("run:logs", examples=("run:logs blog 12", "run:logs blog 12 -t"))
@app_argument
@click.argument("number", type=click.IntRange(min=1))
@click.option("-t", "--tail", is_flag=True, help="Follow it while it runs.")
@click.option("-n", "--num", default=1000, show_default=True, help="How many lines at most.")
@click.pass_obj
def logs(cli: Cli, app: str, number: int, tail: bool, num: int) -> None:
    """Print what a detached command, or one of the schedule, wrote; of one that has ended, the last of it."""
    print_lines(cli, app_path(app, "runs", number, "logs"), tail, num)


@root.command("run:stop", examples=("run:stop blog 12",))
@app_argument
@click.argument("number", type=click.IntRange(min=1))
@click.pass_obj
def stop(cli: Cli, app: str, number: int) -> None:
    """End a one-off command: SIGTERM, and SIGKILL ten seconds later."""
    cli.client.request("DELETE", app_path(app, "runs", number))
    cli.console.print(f"-----> Stopped run {number} of {app}")


def print_lines(cli: Cli, path: str, follow: bool, tail: int) -> None:
    """A run's output as it comes."""
    for line in cli.client.messages("GET", path, query={"tail": tail, "follow": int(follow)}):
        cli.console.print(line["text"], colours=True)


def run_row(run: dict[str, Any]) -> tuple[Any, ...]:
    status = run["status"] if run["exit_code"] in (None, 0) else f"{run['status']} ({run['exit_code']})"
    took = "" if run["seconds"] is None else f"{run['seconds']:.1f} s"
    kind = run["kind"] if run["entry"] is None else f"cron {run['entry']}"
    return (
        *(run["number"], kind, status, run["release"], run["command"]),
        *(run["created_by"], run["created_at"], took, run["reason"]),
    )
