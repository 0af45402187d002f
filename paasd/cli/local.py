"""Commands that exist on the box only, never over SSH."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from paasd import config_file as configuration
from paasd.cli.commands import MODULES as _REGISTERED  # noqa: F401 - registers all others
from paasd.cli.framework import Cli, Group
from paasd.cli.root import root
from paasd.config import Config

_DATA_DIR = Path("/var/lib/paasd")

box_only = Group("box-only")


def program() -> Group:
    """Every command there is on the box."""
    from paasd.cli import base, doctor, stop  # noqa: F401 - they register themselves, and import this module

    return Group(
        root.name, {**root.commands, **box_only.commands}, help=root.help, context_settings=root.context_settings
    )


@box_only.command("serve", examples=("serve --data-dir /tmp/paasd --http-port 8080 --ssh-port 2222",))
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="paasd.toml to read.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=_DATA_DIR, show_default=True)
@click.option("--domain", help="Apps are at <app>.<domain>.")
@click.option("--http-port", type=int)
@click.option("--https-port", type=int)
@click.option("--ssh-port", type=int)
@click.option("--ssh-transport", type=click.Choice(["embedded", "openssh"]))
@click.option("--label", help="Marks this paasd's objects, so that several can share an engine.")
@click.option("--admin-key", help="File with the first administrator's public key.")
@click.pass_obj
def serve(cli: Cli, /, config_file: Path | None, data_dir: Path, **options: Any) -> int:
    """Run the daemon in the foreground. Nginx and the apps go on when it ends."""
    settings = load_config(config_file, data_dir, options)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    return asyncio.run(_serve(settings))


def load_config(config_file: Path | None, data_dir: Path, options: dict[str, Any]) -> Config:
    """The file (the box's own unless another is named), with the options laid over it."""
    default = configuration.DEFAULT_CONFIG_FILE
    if config_file is None and data_dir == _DATA_DIR and default.exists():
        config_file = default
    names = {
        "domain": "http.domain",
        "http_port": "http.port",
        "https_port": "http.https_port",
        "ssh_port": "ssh.port",
        "ssh_transport": "ssh.transport",
        "label": "label",
        "admin_key": "admin_key",
    }
    loaded = configuration.load(config_file, data_dir)
    return configuration.changed(loaded, {names[option]: value for option, value in options.items()})


async def _serve(settings: Config) -> int:
    # What is loaded and built until it serves stays for good: looking for garbage among it takes a sixth of the start.
    gc.disable()
    # There are none; looking through all installed packages for them takes longer than loading pydantic.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from paasd.cli.commands import SessionCommands
    from paasd.daemon import Daemon

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = Daemon(settings, SessionCommands(settings.api_socket))
    if os.environ.get("PAASD_BLOCKBUSTER"):
        _forbid_blocking()
    await daemon.start()
    gc.freeze()
    gc.enable()
    try:
        await stop.wait()
    finally:
        await daemon.stop()
    return 0


def _forbid_blocking() -> None:
    """A test's wish: whatever blocks the loop raises, except look-ups and changes of single directory entries, which
    cost less than handing them to a thread."""
    from blockbuster import BlockBuster

    blockbuster = BlockBuster("paasd")
    for name, function in blockbuster.functions.items():
        if not name.startswith("os.") or name in ("os.read", "os.write", "os.sendfile"):
            function.activate()


@box_only.command("completion", examples=("completion bash > /etc/bash_completion.d/paasd",))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(cli: Cli, shell: str) -> None:
    """Print a script that completes commands, options and app names."""
    if shell == "bash":
        # Bash takes the colon of apps:create for the end of a word.
        cli.console.print('COMP_WORDBREAKS="${COMP_WORDBREAKS//:}"')
    found = get_completion_class(shell)
    assert found is not None
    cli.console.print(found(program(), {"obj": cli}, "paasd", "_PAASD_COMPLETE").source())


def complete(group: click.Group, cli: Cli, instruction: str) -> None:
    """Answer the script above: `bash_complete` and the like."""
    shell, _, _ = instruction.partition("_")
    found = get_completion_class(shell)
    if found is not None:
        cli.console.print(found(group, {"obj": cli}, "paasd", "_PAASD_COMPLETE").complete())
