"""cron:*"""

from __future__ import annotations

import shlex
from typing import Any

import click

from paasd.cli.framework import Cli, app_argument, app_path, json_option
from paasd.cli.root import root
from paasd.cli.run import print_lines, run_row
from paasd.errors import InvalidInput

_entry = click.argument("number", metavar="ID", type=click.IntRange(min=1))


@root.command("cron:list", examples=("cron:list blog",))
@app_argument
@json_option
@click.pass_obj
def listing(cli: Cli, app: str, as_json: bool) -> None:
    """List what an app runs when: the entries of its app.json and those added here."""
    found = cli.client.get(app_path(app, "cron"))["items"]
    if as_json:
        return cli.console.json(found)
    columns = ("ID", "SCHEDULE", "TIMEZONE", "COMMAND", "CONCURRENCY", "FROM", "NEXT", "LAST")
    cli.console.table(columns, [_row(entry) for entry in found])


@root.command(
    "cron:add",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=(
        'cron:add blog "0 3 * * *" python manage.py cleanup',
        "cron:add --timezone Europe/Berlin --concurrency forbid blog @daily ./report.sh",
        'cron:add blog "*/5 * * * *" "cat *.log | wc -l"',
    ),
)
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Europe/Berlin, …")
@click.option(
    "--concurrency",
    type=click.Choice(("allow", "forbid", "replace")),
    default="allow",
    show_default=True,
    help="What happens while the run before is under way: another one, none, or its end.",
)
@app_argument
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SCHEDULE COMMAND...")
@click.pass_obj
def add(cli: Cli, app: str, words: tuple[str, ...], timezone: str, concurrency: str) -> None:
    """Run a command on a schedule; five fields or a name, quoted or not. A command of one word is shell text."""
    schedule, command = _divided(words)
    text = command[0] if len(command) == 1 else shlex.join(command)
    body = {"schedule": schedule, "command": text, "timezone": timezone, "concurrency": concurrency}
    found = cli.client.request("POST", app_path(app, "cron"), body)
    cli.console.print(f"-----> Entry {found['number']} of {app} runs next at {found['next_at']}: {found['command']}")


def _divided(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Schedule and command. Over SSH the quotes around five fields are gone. Raises InvalidInput."""
    size = 1 if words[0].startswith("@") or len(words[0].split()) > 1 else 5
    if len(words) <= size:
        raise InvalidInput(
            "a schedule and a command are needed", hint='For example: cron:add blog "0 3 * * *" python cleanup.py'
        )
    return " ".join(words[:size]), words[size:]


@root.command("cron:remove", examples=("cron:remove blog 3",))
@app_argument
@_entry
@click.pass_obj
def remove(cli: Cli, app: str, number: int) -> None:
    """Take away an entry that was added here; its history stays for a while."""
    cli.client.request("DELETE", app_path(app, "cron", number))
    cli.console.print(f"-----> Removed cron entry {number} of {app}")


@root.command("cron:run", examples=("cron:run blog 3",))
@app_argument
@_entry
@json_option
@click.pass_obj
def run(cli: Cli, app: str, number: int, as_json: bool) -> None:
    """Run an entry's command now, whatever its schedule says and also when it is suspended."""
    found = cli.client.request("POST", app_path(app, "cron", number, "runs"))
    if as_json:
        return cli.console.json(found)
    cli.console.print(f"-----> Run {found['number']} of {app} has started: {found['command']}")
    cli.console.print(f"       See what it writes: run:logs {app} {found['number']} -t")


@root.command("cron:suspend", examples=("cron:suspend blog 3",))
@app_argument
@_entry
@click.pass_obj
def suspend(cli: Cli, app: str, number: int) -> None:
    """Let an entry not run until it is resumed, also over deployments."""
    cli.client.request("PATCH", app_path(app, "cron", number), {"suspended": True})
    cli.console.print(f"-----> Suspended cron entry {number} of {app}; go on with: cron:resume {app} {number}")


@root.command("cron:resume", examples=("cron:resume blog 3",))
@app_argument
@_entry
@click.pass_obj
def resume(cli: Cli, app: str, number: int) -> None:
    """Let a suspended entry run again at its times."""
    found = cli.client.request("PATCH", app_path(app, "cron", number), {"suspended": False})
    cli.console.print(f"-----> Cron entry {number} of {app} runs next at {found['next_at']}")


@root.command("cron:history", examples=("cron:history blog", "cron:history blog 3"))
@app_argument
@click.argument("number", metavar="[ID]", required=False, type=click.IntRange(min=1))
@click.option("-n", "--num", default=20, show_default=True, help="How many.")
@json_option
@click.pass_obj
def history(cli: Cli, app: str, number: int | None, num: int, as_json: bool) -> None:
    """List the runs of an entry (or of all), newest first: also those that were missed or skipped."""
    found = cli.client.get(app_path(app, "cron", number or 0, "runs"), limit=num)["items"]
    if as_json:
        return cli.console.json(found)
    columns = ("RUN", "ENTRY", "STATUS", "RELEASE", "COMMAND", "BY", "STARTED", "TOOK", "REASON")
    cli.console.table(columns, [run_row(run) for run in found])


@root.command("cron:log", examples=("cron:log blog 3", "cron:log blog 3 -t"))
@app_argument
@_entry
@click.option("-t", "--tail", is_flag=True, help="Follow it while it runs.")
@click.option("-n", "--num", default=1000, show_default=True, help="How many lines at most.")
@click.pass_obj
def log(cli: Cli, app: str, number: int, tail: bool, num: int) -> None:
    """Print what an entry's newest run wrote; older ones with run:logs."""
    print_lines(cli, app_path(app, "cron", number, "logs"), tail, num)


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    last = entry["last"]
    return (
        *(entry["number"], entry["schedule"], entry["timezone"], entry["command"], entry["concurrency"]),
        *(entry["origin"], "suspended" if entry["suspended"] else entry["next_at"], last and last["status"]),
    )
