"""Procfile: `<type>: <command>`, one a line. Strict, as Dokku's strict mode: an error names its line."""

from __future__ import annotations

import re

from paasd.errors import InvalidInput, SourceRejected
from paasd.models import ProcessType
from paasd.names import process_type, shown

_LINE = re.compile(r"([^\s:]+)\s*:\s*(.*)")
_TRAILING_COMMENT = re.compile(r"\s#.*$|\s//.*$")


def parse(text: str) -> tuple[ProcessType, ...]:
    """Raises SourceRejected for a bad line, a repeated type or a file without any."""
    found: dict[str, ProcessType] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _TRAILING_COMMENT.sub("", raw).strip()
        if not line or line.startswith(("#", "//")):
            continue
        match = _LINE.fullmatch(line)
        if not match or not match[2]:
            raise SourceRejected(
                f"Procfile line {number} is not `<type>: <command>`: {shown(raw)}",
                hint="Write for example: web: gunicorn app:app",
            )
        try:
            name = process_type(match[1])
        except InvalidInput as error:
            raise SourceRejected(f"Procfile line {number}: {error.detail}", hint=error.hint) from error
        if name in found:
            raise SourceRejected(f"Procfile line {number} repeats the process type {name}", hint="Keep one of them.")
        found[name] = ProcessType(name, match[2].strip())
    if not found:
        raise SourceRejected("the Procfile names no process type", hint="Write for example: web: python app.py")
    return tuple(found.values())
