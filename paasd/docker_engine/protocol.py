"""What is said on the engine's socket: versions of its API, parameters, answers. Pure."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Mapping
from typing import Any

from paasd.errors import EngineUnavailable

OLDEST_API = (1, 41)
NEWEST_API = (1, 51)

Params = Mapping[str, Any] | Iterable[tuple[str, Any]]


def negotiated(offered: str) -> str:
    """The API version to speak with an engine that offers `offered`, as `v1.41`."""
    try:
        major, minor = (int(part) for part in offered.split(".", 1))
    except ValueError:
        raise EngineUnavailable(f"the container engine names no API version that is understood: {offered!r}") from None
    if (major, minor) < OLDEST_API:
        raise EngineUnavailable(
            f"the container engine speaks API {offered}, paasd needs {_dotted(OLDEST_API)} or newer",
            hint="Upgrade Docker to 20.10 or newer.",
        )
    return f"v{_dotted(min((major, minor), NEWEST_API))}"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def encoded(params: Params | None) -> list[tuple[str, str]]:
    pairs = params.items() if isinstance(params, Mapping) else params or ()
    return [(key, _one(value)) for key, value in pairs if value is not None]


def _one(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return jsonlib.dumps(value) if isinstance(value, dict | list) else str(value)


def decoded(body: bytes, content_type: str) -> Any:
    if not body.strip():
        return None
    return jsonlib.loads(body) if content_type == "application/json" else body.decode(errors="backslashreplace")


def upgrade_request(path: str, protocol: str, headers: Iterable[tuple[str, str]]) -> bytes:
    fixed = (("Host", "docker"), ("Connection", "Upgrade"), ("Upgrade", protocol), ("Content-Length", "0"))
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (*fixed, *headers))]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
