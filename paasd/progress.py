"""What a user sees while something long runs, in the output grammar of Dokku: `----->` step, `=====>` heading,
seven spaces for detail, ` !     ` for a warning."""

from __future__ import annotations

import re
from collections.abc import Callable

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_PLAIN = "\x1b[0m"

Sink = Callable[[str], None]


class Progress:
    """Writes lines to any number of sinks (the push stream, the build's log). A sink must not block."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)

    def add(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def remove(self, sink: Sink) -> None:
        if sink in self._sinks:
            self._sinks.remove(sink)

    def step(self, text: str) -> None:
        self._write(f"-----> {text}")

    def heading(self, text: str) -> None:
        self._write(f"=====> {text}")

    def detail(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            self._write(f"       {line}")

    def warn(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            self._write(f" !     {line}")

    def line(self, text: str) -> None:
        """A line that another progress made."""
        self._write(text)

    def _write(self, line: str) -> None:
        line = without_controls(line)
        for sink in list(self._sinks):
            sink(line)


def without_controls(text: str) -> str:
    """Text that cannot steer a terminal: escape sequences (ECMA-48) and control characters left out, tabs kept."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def with_colours_only(text: str) -> str:
    """The same, but colours and other renditions (SGR) stay, and end with the text."""
    if not _COLOUR.search(text):
        return without_controls(text)
    pieces = _COLOUR.split(text)
    return "".join(p if i % 2 else without_controls(p) for i, p in enumerate(pieces)) + _PLAIN
