"""stop, purge, builds:limit: looking after the box without the daemon"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import click

from paasd.cli.framework import Cli
from paasd.cli.local import box_only
from paasd.cli.own_config import ROOT, own_config, own_config_options
from paasd.errors import Conflict, Forbidden
from paasd.pid_file import PidFile

_STOP_TIMEOUT = 60.0


@box_only.command("stop", examples=("stop", "stop --all"))
@own_config_options
@click.option("--all", "edge_too", is_flag=True, help="Nginx too, so that no app can be reached.")
@click.option("--apps", is_flag=True, help="The apps' containers too; a started daemon starts them again.")
@click.pass_obj
def stop(cli: Cli, config_file: Path | None, data_dir: Path, edge_too: bool, apps: bool) -> None:
    """Stop the daemon. Nginx and the apps go on unless told otherwise."""
    from paasd.purge import stop_apps, stop_edge

    config = own_config(config_file, data_dir)
    stopped = _stop_daemon(PidFile(config.run_dir))
    cli.console.print("-----> The daemon is stopped" if stopped else "-----> The daemon was not running")
    if edge_too:
        asyncio.run(stop_edge(config, ROOT / "nginx"))
        cli.console.print("-----> Nginx is stopped")
    if apps:
        cli.console.print(f"-----> {asyncio.run(stop_apps(config))} containers are stopped")


@box_only.command("purge", examples=("purge", "purge --force"))
@own_config_options
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(cli: Cli, config_file: Path | None, data_dir: Path, force: bool) -> None:
    """Remove all apps and all data of this paasd, for good. Base images stay: other paasd may use them."""
    from paasd.purge import purge as remove_all

    config = own_config(config_file, data_dir)
    cli.confirm(config.label, force, f"This removes every app of {config.label} and all of {config.data_dir}.")
    _stop_daemon(PidFile(config.run_dir))
    asyncio.run(remove_all(config, ROOT / "nginx", lambda what: cli.console.print(f"-----> Removing {what}")))


@box_only.command("builds:limit", examples=("builds:limit",))
@own_config_options
@click.pass_obj
def builds_limit(cli: Cli, config_file: Path | None, data_dir: Path) -> None:
    """Limit memory, CPU and processes of all builds together, as build.* says. Needs root; holds until a reboot."""
    from paasd.build.limits import limit_builds

    build = own_config(config_file, data_dir).build
    try:
        limits = limit_builds(build)
    except OSError as error:
        raise Forbidden(f"builds cannot be limited: {error}", hint="Run it as root: sudo paasd builds:limit") from error
    cli.console.print(f"-----> All builds together get {limits}")


def _stop_daemon(pid_file: PidFile) -> bool:
    """False when none runs. Raises Conflict when it does not end."""
    pid = pid_file.running()
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not pid_file.wait_until_free(_STOP_TIMEOUT):
        raise Conflict(f"the daemon (pid {pid}) does not end", hint=f"Look at its log; kill -9 {pid} does no harm.")
    return True
