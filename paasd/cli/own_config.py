"""For commands that work with the daemon down: whose data directory, and with which settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from paasd.cli.framework import F
from paasd.cli.local import load_config
from paasd.config import Config
from paasd.config_file import changed, settings
from paasd.pid_file import PidFile

ROOT = Path(__file__).parent.parent.parent
"""Holds `nginx/` and `buildpacks/`."""


def own_config_options(command: F) -> F:
    options: list[Callable[[Any], Any]] = [
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="paasd.toml to read."),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            default="/var/lib/paasd",
            show_default=True,
            envvar="PAASD_DATA_DIR",
        ),
    ]
    for option in options:
        command = option(command)
    return command


def own_config(config_file: Path | None, data_dir: Path) -> Config:
    """The file, then how the daemon was last started here, options of its command line included."""
    data_dir = data_dir.absolute()
    config = load_config(config_file, data_dir, {})
    if config_file is not None:
        return config
    known = settings()
    last = PidFile(config.run_dir).last_settings()
    return changed(config, {name: value for name, value in last.items() if name in known})
