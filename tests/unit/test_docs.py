"""The documents name every command, operation and setting, as the code has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from paasd import config_file
from paasd.cli.local import program
from scripts.reference import DOCS, operations

ROOT = Path(__file__).parent.parent.parent


def test_reference_parts_are_up_to_date() -> None:
    done = subprocess.run([ROOT / "scripts" / "docs", "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_command_is_documented_with_examples() -> None:
    page = (DOCS / "commands.md").read_text()
    for name, command in program().commands.items():
        assert f"### `{name}`" in page
        assert command.help, name
        assert getattr(command, "examples", ()), name


def test_every_operation_is_documented() -> None:
    page = (DOCS / "api.md").read_text()
    assert len(operations()) > 30
    for operation in operations():
        assert f"`{operation.method} /api/v1{operation.path}`" in page


def test_every_setting_is_documented_with_a_meaning() -> None:
    rows = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in _table()}
    for name in config_file.settings():
        assert rows.get(f"`{name}`"), name


def _table() -> list[str]:
    return [line for line in (DOCS / "config.md").read_text().splitlines() if line.startswith("| `")]
