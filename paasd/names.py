"""The grammars of names that users choose, and how such text is shown."""

from __future__ import annotations

import re

from paasd.errors import InvalidInput

_CHOSEN = r"[a-z](?:[a-z0-9]|-(?!-)){0,39}(?<!-)"
MAX_PREVIEW_PREFIX = 21
_PREVIEW_PREFIX = rf"[a-z](?:[a-z0-9]|-(?!-)){{0,{MAX_PREVIEW_PREFIX - 1}}}(?<!-)--"
_CHOSEN_NAME = re.compile(_CHOSEN)
_APP_NAME = re.compile(rf"(?:{_PREVIEW_PREFIX})?{_CHOSEN}")
_PROCESS_TYPE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BRANCH = re.compile(r"[A-Za-z0-9_][^\x00-\x20\x7f~^:?*\[\\]*")
_CONFIG_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def chosen_name(value: str) -> str:
    """Check a name that somebody gives an app, project or pipeline: a DNS label of 1–40 characters. Raises
    InvalidInput."""
    return _matched(_CHOSEN_NAME, value)


def app_name(value: str) -> str:
    """Check the name of any app: a chosen one, or that of a preview (`feature-x--blog`), which is a DNS label too.
    Raises InvalidInput."""
    return _matched(_APP_NAME, value)


def _matched(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise InvalidInput(
            f"invalid name {shown(value)}",
            hint="Use 1 to 40 lowercase letters, digits and single hyphens, starting with a letter.",
        )
    return value


def process_type(value: str) -> str:
    """Check a process type: an RFC 1123 label. Raises InvalidInput."""
    if not _PROCESS_TYPE.fullmatch(value):
        raise InvalidInput(
            f"invalid process type {shown(value)}",
            hint="Use 1 to 63 lowercase letters, digits and hyphens, like web or worker-high.",
        )
    return value


def config_key(value: str) -> str:
    """Check the name of a config var (POSIX environment variable name). Raises InvalidInput."""
    if not _CONFIG_KEY.fullmatch(value):
        raise InvalidInput(
            f"invalid config var name {shown(value)}",
            hint="Use letters, digits and underscores, not starting with a digit.",
        )
    return value


def branch_name(value: str) -> str:
    """Check a branch name by the rules of git-check-ref-format(1) that matter here. Raises InvalidInput."""
    forbidden = ("..", "//", "@{", "/.", ".lock/")
    if (
        not 0 < len(value) <= 200
        or not _BRANCH.fullmatch(value)
        or any(text in value for text in forbidden)
        or value.endswith(("/", ".", ".lock"))
    ):
        raise InvalidInput(f"invalid branch name {shown(value)}", hint="Use a name such as main or release/1.2.")
    return value


def shown(value: str, limit: int = 60) -> str:
    """`value` made safe to print: control characters escaped, long text cut."""
    escaped = ascii(value)
    return escaped if len(escaped) <= limit else f"{escaped[:limit]}…' ({len(value)} characters)"
