"""The host's pip settings that builds need too: indexes and trusted hosts. Given to builds as a mounted file, because
an index URL may hold credentials."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_LISTS = ("extra-index-url", "find-links", "trusted-host")
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def host_pip_config(environ: Mapping[str, str] = os.environ) -> str:
    """Text of the pip.conf for builds, from the host's files and the daemon's environment."""
    home = Path(environ.get("HOME", "/nonexistent"))
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    files += [Path(environ["PIP_CONFIG_FILE"])] if environ.get("PIP_CONFIG_FILE") else []
    return pip_config([text for path in files if (text := _text(path)) is not None], environ)


def pip_config(files: Iterable[str], environ: Mapping[str, str]) -> str:
    """Later files win over earlier ones, the environment over all. Only http(s) places can be reached from a build."""
    settings: dict[str, list[str]] = {}
    for text in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(text)
        except configparser.Error:
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= {name.replace("_", "-"): value.split() for name, value in parser.items(section)}
    for name in ("index-url", *_LISTS):
        if value := environ.get(f"PIP_{name.upper().replace('-', '_')}"):
            settings[name] = value.split()
    return _rendered(settings)


def _rendered(settings: Mapping[str, list[str]]) -> str:
    lines = [
        "[global]",
        f"cert = {_CA_BUNDLE}",
        "disable-pip-version-check = true",
        "no-input = true",
        "root-user-action = ignore",
    ]
    for name in ("index-url", *_LISTS):
        values = [value for value in settings.get(name, []) if name == "trusted-host" or _is_remote(value)]
        if values:
            lines.append(f"{name} = {' '.join(values)}")
    return "\n".join(lines) + "\n"


def _is_remote(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
