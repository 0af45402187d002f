"""doctor"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import click

from paasd.cli.client import Client
from paasd.cli.framework import Cli, json_option
from paasd.cli.local import box_only
from paasd.cli.own_config import ROOT, own_config, own_config_options

_WIDTH = 12


@box_only.command("doctor", examples=("doctor", "doctor --state", "doctor --json"))
@own_config_options
@click.option("--state", is_flag=True, help="Compare database, engine, edge and files; needs the daemon.")
@json_option
@click.pass_obj
def doctor(cli: Cli, config_file: Path | None, data_dir: Path, state: bool, as_json: bool) -> int:
    """Examine this machine and say how to mend what is wrong. Exits 1 if something is."""
    if state:
        return _state(cli, data_dir, as_json)
    from paasd.doctor import Level, examine

    findings = asyncio.run(examine(own_config(config_file, data_dir), ROOT))
    if as_json:
        cli.console.json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            cli.console.print(f"{finding.level:<5} {finding.check:<{_WIDTH}} {finding.text}")
            if finding.mend:
                cli.console.print(f"{'':5} {'':{_WIDTH}} -> {finding.mend}")
        counts = {level: sum(finding.level is level for finding in findings) for level in Level}
        cli.console.print("=====> " + ", ".join(f"{count} {level}" for level, count in counts.items()))
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0


def _state(cli: Cli, data_dir: Path, as_json: bool) -> int:
    client = Client(data_dir / "run" / "api.sock")
    differences = client.get("/state")["differences"]
    if as_json:
        cli.console.json(differences)
    elif differences:
        for difference in differences:
            cli.console.print(f"DIFF  {difference}")
        cli.console.print("The daemon mends most of these by itself within 15 seconds.")
    else:
        cli.console.print("OK    database, engine, edge and files agree")
    return 1 if differences else 0
