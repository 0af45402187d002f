"""The host's settings for Go modules that builds need too: proxies, private modules, checksum database. Given to builds
as a mounted file (GOENV), because the address of a proxy may hold credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_NAMES = ("GOPROXY", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOSUMDB", "GOINSECURE", "GOVCS")


def host_go_env(environ: Mapping[str, str] = os.environ) -> str:
    """Text of the file that `go env -w` would write; the daemon's environment wins over the user's file."""
    file = Path(environ.get("GOENV") or Path(environ.get("HOME", "/nonexistent")) / ".config/go/env")
    settings: dict[str, str] = {}
    for line in _text(file).splitlines():
        name, mark, value = line.partition("=")
        if mark and name in _NAMES:
            settings[name] = value
    settings |= {name: environ[name] for name in _NAMES if environ.get(name)}
    # One line each: whatever a value holds cannot become another setting.
    return "".join(f"{name}={' '.join(value.split())}\n" for name, value in sorted(settings.items()))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
