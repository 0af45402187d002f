"""The host's pip settings that builds need too: indexes and trusted hosts, for pip and uv. Given to builds as mounted
files, because an index URL may hold credentials."""

from __future__ import annotations

import configparser
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_LISTS = ("extra-index-url", "find-links", "trusted-host")
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def host_pip_config(environ: Mapping[str, str] = os.environ) -> str:
    """Text of the pip.conf for builds, from the host's files and the daemon's environment."""
    return pip_config(_host_files(environ), environ)


def host_uv_config(environ: Mapping[str, str] = os.environ) -> str:
    """The same as a uv.toml."""
    return uv_config(_host_files(environ), environ)


def _host_files(environ: Mapping[str, str]) -> list[str]:
    home = Path(environ.get("HOME", "/nonexistent"))
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    files += [Path(environ["PIP_CONFIG_FILE"])] if environ.get("PIP_CONFIG_FILE") else []
    return [text for path in files if (text := _text(path)) is not None]


def pip_config(files: Iterable[str], environ: Mapping[str, str]) -> str:
    """Later files win over earlier ones, the environment over all. Only http(s) places can be reached from a build."""
    return _rendered(_settings(files, environ))


def uv_config(files: Iterable[str], environ: Mapping[str, str]) -> str:
    """The same as a uv.toml; empty when pip has no settings that uv would not have by itself."""
    settings = _settings(files, environ)
    lines = []
    if links := list(filter(_is_remote, settings.get("find-links", []))):
        lines.append(f"find-links = {json.dumps(links)}")
    if hosts := settings.get("trusted-host", []):
        lines.append(f"allow-insecure-host = {json.dumps(hosts)}")
    for name in ("index-url", "extra-index-url"):
        for url in filter(_is_remote, settings.get(name, [])):
            lines += ["[[index]]", f"url = {json.dumps(url.rstrip('/'))}"]  # as locks of uv name them
            lines += ["default = true"] if name == "index-url" else []
    return "".join(f"{line}\n" for line in lines)


def _settings(files: Iterable[str], environ: Mapping[str, str]) -> dict[str, list[str]]:
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
    return settings


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
