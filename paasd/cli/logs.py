"""logs"""

from __future__ import annotations

import click

from paasd.cli.framework import Cli, app_argument, app_path
from paasd.cli.root import root


@root.command("logs", examples=("logs blog", "logs blog -t", "logs blog -n 500 -p worker"))
@app_argument
@click.option("-t", "--tail", "follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--num", default=100, show_default=True, help="Lines to begin with.")
@click.option("-p", "--ps", "process", help="Only this process type (web) or instance (web.1).")
@click.option("-q", "--quiet", is_flag=True, help="Only the text, without time and instance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def logs(cli: Cli, app: str, follow: bool, num: int, process: str | None, quiet: bool, as_json: bool) -> None:
    """Print what an app's instances wrote, merged by time. Colours stay; other control characters are left out."""
    query = {"tail": num, "follow": int(follow), "process": process}
    colours: dict[str, int] = {}
    for line in cli.client.messages("GET", app_path(app, "logs"), query=query):
        if as_json:
            cli.console.json_line(line)
        elif quiet:
            cli.console.print(line["text"], colours=True)
        else:
            name = line["instance"]
            prefix = f"{line['at']} {app}[{name}]:"
            shown = cli.console.coloured(prefix, colours.setdefault(name, len(colours)))
            cli.console.print(f"{shown} {line['text']}", colours=True)
