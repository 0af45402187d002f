"""Reads the repository's TOML, and names of packages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from paasd.build.plan import Source
from paasd.errors import SourceRejected

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def toml(source: Source, path: str) -> dict[str, Any]:
    """Empty without the file. Raises SourceRejected when it is not TOML."""
    try:
        return tomllib.loads(source.read(path) or "")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SourceRejected(
            f"{path} is not valid TOML: {error}", hint=f"Mend {path}, commit and push again."
        ) from None


def pyproject(source: Source) -> dict[str, Any]:
    return toml(source, "pyproject.toml")


def table(document: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A table inside others; empty when there is none."""
    found: Any = document
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def package(text: str) -> str:
    """The normal form of the name that a requirement begins with; empty when it begins with none."""
    match = _NAME.match(text.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def packages(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(filter(None, map(package, texts)))
