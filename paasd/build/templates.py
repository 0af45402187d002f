"""The one environment in which templates of Dockerfiles are rendered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2


def environment(templates: Mapping[str, str]) -> jinja2.Environment:
    """`templates`: name → text. A value that a template names and nobody gives is an error."""
    return _environment(tuple(sorted(templates.items())))


@lru_cache(maxsize=64)  # it keeps its templates compiled, which takes 5 ms each
def _environment(templates: tuple[tuple[str, str], ...]) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.DictLoader(dict(templates)),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["json"] = _json
    return made


def _json(value: Any) -> str:
    """On one line and plain ASCII, so that it cannot end an instruction of a Dockerfile."""
    return json.dumps(value, ensure_ascii=True)
