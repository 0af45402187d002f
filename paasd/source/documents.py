"""Reads the JSON and TOML files of a repository; whatever is wrong with one is said with its name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from paasd.errors import SourceRejected


def json_document(name: str, text: str) -> dict[str, Any]:
    """Raises SourceRejected when it is not one JSON object."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SourceRejected(
            f"{name} is not valid JSON: {error}", hint=f"Check it with: python3 -m json.tool {name}"
        ) from error
    if not isinstance(document, dict):
        raise SourceRejected(f"{name} must hold one object")
    return document


def toml_document(name: str, text: str) -> dict[str, Any]:
    """Raises SourceRejected naming the line."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SourceRejected(f"{name} is not valid TOML: {error}", hint="Mend it, commit and push again.") from error


def table(name: str, document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table of a document, empty when it is not there. Raises SourceRejected when it is something else."""
    found = document.get(key, {})
    if not isinstance(found, dict):
        raise SourceRejected(f"{name}: {key} must be an object")
    return found
