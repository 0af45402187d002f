"""Pages of an app's own in place of the edge's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paasd.app_settings import Key
from paasd.gateway.parts import Part, Values

_STATUSES = ("502", "503", "504")
_MOST = 16 * 1024
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_WHAT = f"HTML in UTF-8 of at most {_MOST // 1024} KiB"


def html(value: str) -> str:
    if not value.strip() or _NO_TEXT.search(value) or len(value.encode()) > _MOST:
        raise ValueError(_WHAT)
    return value


KEYS: Mapping[str, Key] = {
    f"error-page.{status}": Key(html, f"HTML shown when {when} (the edge's own page).")
    for status, when in zip(
        _STATUSES,
        ("the app does not answer", "no instance runs or the breaker is open", "the app does not answer in time"),
        strict=True,
    )
}
PAGES = {"maintenance": "maintenance.page", **{status: f"error-page.{status}" for status in _STATUSES}}
"""Kind of page -> its setting."""


def pages(values: Values) -> dict[str, str]:
    """HTML by kind."""
    return {kind: values[key] for kind, key in PAGES.items() if key in values}


PART = Part("pages", KEYS, lambda values: None)
