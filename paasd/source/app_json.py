"""app.json: what paasd reads of Heroku's and Dokku's keys."""

from __future__ import annotations

import json
from typing import Any

from paasd.errors import SourceRejected

_NUMBERS = ("attempts", "timeout", "wait", "initialDelay", "uptime", "port")


def healthchecks(text: str | None) -> dict[str, list[dict[str, Any]]]:
    """`healthchecks` by process type; empty without the file. Raises SourceRejected naming the key that is wrong."""
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SourceRejected(
            f"app.json is not valid JSON: {error}", hint="Check it with: python3 -m json.tool app.json"
        ) from error
    if not isinstance(document, dict):
        raise SourceRejected("app.json must hold one object")
    found = document.get("healthchecks", {})
    if not isinstance(found, dict) or not all(isinstance(checks, list) for checks in found.values()):
        raise SourceRejected("app.json: healthchecks must map process types to lists of checks")
    for name, checks in found.items():
        for check in checks:
            _validate(name, check)
    return found


def _validate(name: str, check: Any) -> None:
    where = f"app.json: healthchecks.{name}"
    if not isinstance(check, dict):
        raise SourceRejected(f"{where} holds something that is not an object")
    path = check.get("path")
    if path is not None and (not isinstance(path, str) or not path.startswith("/") or not path.isprintable()):
        raise SourceRejected(f"{where}.path must be a string that starts with /")
    if not isinstance(check.get("content", ""), str | None):
        raise SourceRejected(f"{where}.content must be a string")
    for key in _NUMBERS:
        value = check.get(key, 0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 65535:
            raise SourceRejected(f"{where}.{key} must be a number of 0 or more")
