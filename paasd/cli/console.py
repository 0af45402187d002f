"""Where a command reads and prints: the local terminal, or an SSH session inside the daemon."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_COLOURS = (36, 33, 32, 35, 34, 31)
"""ANSI foreground colours (ECMA-48) handed out to instances in turn."""


class Console:
    """Text on three file descriptors. Writing to a reader that left raises BrokenPipeError."""

    def __init__(
        self,
        stdin: int,
        stdout: int,
        stderr: int,
        *,
        size: Callable[[], tuple[int, int]] | None = None,
        local: bool = False,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.size = size
        """Columns and rows of the terminal; None when there is none."""
        self.local = local

    @property
    def colour(self) -> bool:
        return self.size is not None and os.isatty(self.stdout)

    def print(self, text: str = "") -> None:
        _write(self.stdout, text + "\n")

    def error(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            _write(self.stderr, f" !     {line}\n")

    def raw(self, data: bytes, *, stderr: bool = False) -> None:
        _write_bytes(self.stderr if stderr else self.stdout, data)

    def json(self, value: Any) -> None:
        self.print(json.dumps(value, indent=2, ensure_ascii=False))

    def json_line(self, value: Any) -> None:
        self.print(json.dumps(value, ensure_ascii=False))

    def heading(self, text: str) -> None:
        self.print(f"=====> {text}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Aligned columns with one header line."""
        cells = [[str("" if cell is None else cell) for cell in row] for row in rows]
        widths = [max(len(title), *(len(row[i]) for row in cells), 0) for i, title in enumerate(columns)]
        for row in [list(columns), *cells]:
            self.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def facts(self, facts: Mapping[str, Any]) -> None:
        """`Key:  value` lines with the values aligned."""
        width = max((len(key) for key in facts), default=0) + 1
        for key, value in facts.items():
            self.print(f"       {(key + ':').ljust(width)}  {'' if value is None else value}")

    def coloured(self, text: str, key: int) -> str:
        return f"\033[{_COLOURS[key % len(_COLOURS)]}m{text}\033[0m" if self.colour else text

    def read_all(self) -> str:
        """Standard input to its end, as text."""
        with open(self.stdin, "rb", closefd=False) as file:
            return file.read().decode("utf-8", errors="surrogateescape")

    def ask(self, question: str) -> str:
        """One line typed by the user; empty at the end of input."""
        _write(self.stdout, question)
        with io.TextIOWrapper(open(self.stdin, "rb", closefd=False, buffering=0), newline=None) as file:
            return file.readline().strip()


def _write(fd: int, text: str) -> None:
    _write_bytes(fd, text.encode("utf-8", errors="backslashreplace"))


def _write_bytes(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
