"""`.dockerignore` with Docker's rules: patterns are relative to the root, the last one that matches wins, `!` keeps,
`**` spans folders, and what matches a folder matches all below it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    keeps: bool


class DockerIgnore:
    """Says which paths belong to the build context."""

    def __init__(self, text: str) -> None:
        self._rules = [rule for line in text.removeprefix("\ufeff").splitlines() if (rule := _rule(line))]

    def keeps(self, path: str) -> bool:
        """`path` without a slash at either end."""
        kept = True
        for rule in self._rules:
            if rule.keeps != kept and rule.pattern.fullmatch(path):
                kept = rule.keeps
        return kept


def _rule(line: str) -> _Rule | None:
    if line.startswith("#"):
        return None
    text = line.strip()
    keeps = text.startswith("!")
    if keeps:
        text = text[1:].strip()
    cleaned = posixpath.normpath(text).lstrip("/") if text else ""
    if cleaned in ("", "."):
        return None
    return _Rule(_compiled(cleaned), keeps)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(f"{_expression(pattern)}(?:/.*)?", re.DOTALL)
    except re.error:  # a malformed character class can only mean itself
        return re.compile(f"{re.escape(pattern)}(?:/.*)?", re.DOTALL)


def _expression(pattern: str) -> str:
    out = ""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        character = pattern[at]
        at += 1
        if character == "[" and (end := pattern.find("]", at + 1)) > 0:
            inside = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[{inside}]"
            at = end + 1
        elif character == "\\" and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
    return out
