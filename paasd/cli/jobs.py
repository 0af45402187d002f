"""jobs, jobs:info, jobs:retry, jobs:discard"""

from __future__ import annotations

import json

import click

from paasd.cli.framework import Cli, json_option
from paasd.cli.root import root

_id = click.argument("id", type=click.IntRange(min=1))


@root.command("jobs", examples=("jobs", "jobs --status dead", "jobs --queue cleanup --json"))
@click.option("--queue", help="Only this queue: build, deployment, metrics, notification, cleanup or cron.")
@click.option("--status", help="Only queued, running, done or dead ones.")
@click.option("-n", "--num", default=50, show_default=True, help="How many, at most 200.")
@json_option
@click.pass_obj
def jobs(cli: Cli, queue: str | None, status: str | None, num: int, as_json: bool) -> None:
    """List jobs, newest first. For administrators."""
    found = cli.client.get("/jobs", queue=queue, status=status, limit=max(1, num))["items"]
    if as_json:
        return cli.console.json(found)
    columns = ("id", "queue", "type", "key", "status", "attempts", "run_at", "error")
    rows = [[job[column] for column in columns] for job in found]
    cli.console.table(("ID", "QUEUE", "TYPE", "KEY", "STATUS", "ATTEMPTS", "RUN AT", "ERROR"), rows)


@root.command("jobs:info", examples=("jobs:info 12",))
@_id
@json_option
@click.pass_obj
def info(cli: Cli, id: int, as_json: bool) -> None:
    """Show one job. For administrators."""
    found = cli.client.get(f"/jobs/{id}")
    if as_json:
        return cli.console.json(found)
    cli.console.heading(f"job {id}: {found['type']}")
    cli.console.facts(
        {
            "Status": found["status"],
            "Queue": found["queue"],
            "Key": found["key"] or "none",
            "Attempts": f"{found['attempts']} of {found['max_attempts']}",
            "Last error": found["error"] or "none",
            "Priority": found["priority"],
            "Comes again": f"every {found['every']:g} s" if found["every"] is not None else "no",
            "Added": found["created_at"],
            "Runs at": found["run_at"],
            "Started": found["started_at"] or "not yet",
            "Ended": found["finished_at"] or "not yet",
            "Payload": json.dumps(found["payload"]),
        }
    )


@root.command("jobs:retry", examples=("jobs:retry 12",))
@_id
@click.pass_obj
def retry(cli: Cli, id: int) -> None:
    """Run a dead job, or one that waits for its time, now. For administrators."""
    cli.client.request("POST", f"/jobs/{id}/retry")
    cli.console.print(f"-----> Job {id} is queued; look at it with: jobs:info {id}")


@root.command("jobs:discard", examples=("jobs:discard 12",))
@_id
@click.pass_obj
def discard(cli: Cli, id: int) -> None:
    """Forget a job that does not run. For administrators."""
    cli.client.request("DELETE", f"/jobs/{id}")
    cli.console.print(f"-----> Discarded job {id}")
