"""Where a command reads and prints: the local terminal, or an SSH session inside the daemon.

The border to the terminal: what an app, a repository or another user wrote is printed without control characters and
escape sequences, in JSON with them escaped. Exceptions say so: `raw` for a one-off command's own terminal and for the
exact value of a config var; `colours` for log lines.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from paasd.progress import with_colours_only, without_controls

_COLOURS = (36, 33, 32, 35, 34, 31)
"""ANSI foreground colours (ECMA-48) handed out to instances in turn."""
_UNESCAPED = re.compile(r"[\x7f-\x9f]")
"""Control characters that JSON allows as they are."""


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

    def print(self, text: str = "", *, colours: bool = False) -> None:
        _write(self.stdout, (with_colours_only(text) if colours else without_controls(text)) + "\n")

    def lines(self, pieces: Iterable[bytes]) -> None:
        """Text that comes in pieces."""
        rest = b""
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self.print(line.decode(errors="backslashreplace"))
        if rest:
            self.print(rest.decode(errors="backslashreplace"))

    def error(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            _write(self.stderr, f" !     {without_controls(line)}\n")

    def raw(self, data: bytes, *, stderr: bool = False) -> None:
        _write_bytes(self.stderr if stderr else self.stdout, data)

    def exact(self, text: str) -> None:
        """A line for a program to read, whatever is in it."""
        _write(self.stdout, text + "\n")

    def json(self, value: Any) -> None:
        self.exact(as_json(value, indent=2))

    def json_line(self, value: Any) -> None:
        self.exact(as_json(value))

    def heading(self, text: str) -> None:
        self.print(f"=====> {text}")

    def settings(self, found: Mapping[str, Mapping[str, str]]) -> None:
        """What an app is set to, what says so, and what it means. Certificates are too long to be shown."""
        rows = [
            (key, "set" if s["value"].startswith("-----BEGIN") else s["value"] or "-", s["origin"], s["description"])
            for key, s in found.items()
        ]
        self.table(("SETTING", "VALUE", "FROM", "MEANING"), rows)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Aligned columns with one header line."""
        cells = [[_cell(cell) for cell in row] for row in rows]
        widths = [max(len(title), *(len(row[i]) for row in cells), 0) for i, title in enumerate(columns)]
        for row in [list(columns), *cells]:
            self.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def facts(self, facts: Mapping[str, Any]) -> None:
        """`Key:  value` lines with the values aligned."""
        width = max((len(key) for key in facts), default=0) + 1
        for key, value in facts.items():
            self.print(f"       {(key + ':').ljust(width)}  {_cell(value)}")

    def coloured(self, text: str, key: int) -> str:
        return f"\033[{_COLOURS[key % len(_COLOURS)]}m{text}\033[0m" if self.colour else text

    def pieces(self) -> Iterator[bytes]:
        """Standard input as it comes."""
        while piece := os.read(self.stdin, 256 * 1024):
            yield piece

    def read_all(self) -> str:
        """Standard input to its end, as text."""
        with open(self.stdin, "rb", closefd=False) as file:
            return file.read().decode("utf-8", errors="surrogateescape")

    def ask(self, question: str) -> str:
        """One line typed by the user; empty at the end of input."""
        _write(self.stdout, without_controls(question))
        with io.TextIOWrapper(open(self.stdin, "rb", closefd=False, buffering=0), newline=None) as file:
            return file.readline().strip()


def as_json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(without_controls(str(value)).split("\n"))


def _write(fd: int, text: str) -> None:
    _write_bytes(fd, text.encode("utf-8", errors="backslashreplace"))


def _write_bytes(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
