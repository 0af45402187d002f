"""The `paasd` program."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from paasd.cli import local
from paasd.cli.client import Client
from paasd.cli.console import Console
from paasd.cli.framework import Cli
from paasd.cli.root import run


def main() -> None:
    size = (lambda: tuple(shutil.get_terminal_size())) if sys.stdout.isatty() else None
    console = Console(0, 1, 2, size=size, local=True)  # type: ignore[arg-type]
    cli = Cli(console, Client(api_socket()))
    if "_PAASD_COMPLETE" in os.environ:
        local.complete(local.program(), cli, os.environ["_PAASD_COMPLETE"])
        return
    sys.exit(run(cli, sys.argv[1:], local.program()))


def api_socket() -> Path:
    """PAASD_DATA_DIR names another daemon's data directory than the box's own."""
    return Path(os.environ.get("PAASD_DATA_DIR", "/var/lib/paasd")) / "run" / "api.sock"
