"""A build's progress as lines for a person: one line when a step starts, what it writes, how long it took."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from paasd.build.trace import Status, Vertex, VertexLog

TAIL_LINES = 20
_KEPT_LINES = 200
MAX_LINE = 2000
_MAX_NAME = 300
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOUNTS = re.compile(r" --mount=\S+")
_COMMAND = re.compile(r'\["/bin/sh", "-ec", ("\. /run/paasd/build\.env; .*")\]$', re.DOTALL)
_HIDDEN = ("[internal]", "copy /context")


@dataclass
class _Step:
    name: str
    pending: bytearray = field(default_factory=bytearray)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    started: bool = False
    finished: bool = False
    cached: bool = False


class BuildOutput:
    """Feeds lines to `on_line`. Steps run in parallel: a step's title is repeated when its output is interrupted."""

    def __init__(self, on_line: Callable[[str], None], mask: Callable[[bytes], bytes] = lambda line: line) -> None:
        self._on_line = on_line
        self._mask = mask
        self._steps: dict[str, _Step] = {}
        self._current: _Step | None = None
        self.failed: Vertex | None = None

    def show(self, status: Status) -> None:
        for log in status.logs:
            self._write(log)
        for vertex in status.vertexes:
            self._advance(vertex)

    @property
    def steps(self) -> int:
        """Steps that ended, those of the cache among them."""
        return sum(step.finished for step in self._steps.values())

    @property
    def cached_steps(self) -> int:
        return sum(step.cached for step in self._steps.values())

    def tail(self) -> tuple[str, ...]:
        """The last lines of the step that failed."""
        return self.lines()[-TAIL_LINES:]

    def lines(self) -> tuple[str, ...]:
        """More of them: what a step complains about may stand far from its end."""
        step = self._steps.get(self.failed.digest) if self.failed else None
        return tuple(step.tail) if step else ()

    def _advance(self, vertex: Vertex) -> None:
        if vertex.name.startswith(_HIDDEN):
            self.failed = vertex if vertex.error else self.failed
            return
        step = self._steps.setdefault(vertex.digest, _Step(title(vertex.name)))
        if vertex.started is not None and not step.started and not vertex.cached:
            step.started = True
            self._turn_to(step, again=False)
        if vertex.completed is not None and not step.finished:
            step.finished, step.cached = True, vertex.cached
            self._finish(step, vertex)

    def _finish(self, step: _Step, vertex: Vertex) -> None:
        self._flush(step)
        if vertex.error:
            self.failed = self.failed or vertex
            self._turn_to(step)
            self._on_line("  failed")
        elif vertex.cached:
            self._current = None
            self._on_line(f"{step.name} CACHED")
        else:
            self._turn_to(step)
            self._on_line(f"  done in {(vertex.completed or 0) - (vertex.started or 0):.1f}s")
        self._current = None

    def _write(self, log: VertexLog) -> None:
        step = self._steps.get(log.vertex)
        if step is None:
            return
        step.pending += log.data
        *lines, rest = bytes(step.pending).split(b"\n")
        for line in lines:
            self._emit(step, line)
        step.pending[:] = rest
        if len(rest) > MAX_LINE * 4:
            self._flush(step)

    def _flush(self, step: _Step) -> None:
        if step.pending:
            self._emit(step, bytes(step.pending))
            step.pending.clear()

    def _emit(self, step: _Step, line: bytes) -> None:
        text = printable(self._mask(line))
        step.tail.append(text)
        self._turn_to(step)
        self._on_line(f"  {text}")

    def _turn_to(self, step: _Step, *, again: bool = True) -> None:
        if self._current is not step:
            self._on_line(f"{step.name} …" if again else step.name)
            self._current = step


def title(name: str) -> str:
    """A step's name as BuildKit gives it, without what says nothing here."""
    shortened = _COMMAND.sub(_own_command, _MOUNTS.sub("", name.replace("docker.io/", "", 1)))
    return printable(" ".join(shortened.split()).encode(), _MAX_NAME)


def _own_command(match: re.Match[str]) -> str:
    """A command of the macro `run` as its author wrote it; BuildKit may have cut a long one."""
    try:
        return str(json.loads(match[1])).partition("; ")[2]
    except ValueError:
        return match[0]


def printable(line: bytes, limit: int = MAX_LINE) -> str:
    """Text safe for a terminal: what a progress bar ended with, no escapes or controls, no endless lines."""
    text = line.decode(errors="backslashreplace").rstrip("\r").rpartition("\r")[2]
    text = _CONTROLS.sub("", _ESCAPES.sub("", text)).rstrip()
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
