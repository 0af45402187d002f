"""What a user sees while something long runs, in the output grammar of Dokku: `----->` step, `=====>` heading,
seven spaces for detail, ` !     ` for a warning."""

from __future__ import annotations

from collections.abc import Callable

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

    def _write(self, line: str) -> None:
        for sink in list(self._sinks):
            sink(line)
