"""Plans a static site: which folder is served, and how."""

from __future__ import annotations

import re

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType
from paasd.names import shown

_LINE = re.compile(r"(\w+):\s*(\S.*?)?\s*(?:\s#.*)?", re.IGNORECASE)
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_COMMAND = "exec nginx -e stderr -c /etc/nginx/paasd.conf"
_ON = ("enabled", "true", "yes", "on")


def plan(source: Source, settings: Settings) -> Plan | None:
    keys = _staticfile(source.read("Staticfile"))
    found = _root(source, settings, keys)
    if found is None:
        return None
    folder, reason = found
    spa = (keys or {}).get("pushstate", "").lower() in _ON
    return Plan(
        buildpack="static",
        process_types=(ProcessType("web", _COMMAND),),
        reasons=(reason, *_about(keys or {}, spa)),
        user="10001:10001",
        bases=("static",),
        files=("nginx.conf",),
        values={"folder": folder, "spa": spa},
    )


def _staticfile(text: str | None) -> dict[str, str] | None:
    """Its keys in lower case; None without the file."""
    if text is None:
        return None
    matches = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1].lower(): (match[2] or "").strip("\"'") for match in matches if match}


def _about(keys: dict[str, str], spa: bool) -> list[str]:
    lines = ["Staticfile: pushstate, so index.html answers for paths that are no files"] if spa else []
    if ignored := sorted(set(keys) - {"root", "pushstate"}):
        lines.append(f"Staticfile: {shown(', '.join(ignored))} not followed; root and pushstate are")
    return lines


def _root(source: Source, settings: Settings, keys: dict[str, str] | None) -> tuple[str, str] | None:
    """The folder to serve, with a slash at its end unless it is the root, and what decided it."""
    if settings.output_dir and (keys is not None or settings.builder_is_set or _has_page(source)):
        folder = _checked(source, "the output directory", settings.output_dir)
        return folder, f"serving {settings.output_dir}: set for this app"
    if keys and keys.get("root"):
        return _checked(source, "Staticfile: root", keys["root"]), f"Staticfile: serving {keys['root']}"
    if "index.html" in source.files:
        return "", "index.html: serving the root of the repository"
    if "public/index.html" in source.files:
        return "public/", "public/index.html: serving public/"
    if keys is not None:
        return "", "Staticfile: serving the root of the repository"
    return ("", "serving the root of the repository") if settings.builder_is_set else None


def _has_page(source: Source) -> bool:
    return any(path.endswith(".html") for path in source.files)


def _checked(source: Source, what: str, value: str) -> str:
    folder = value.removeprefix("./").strip("/")
    if folder in ("", "."):
        return ""
    if not _FOLDER.fullmatch(folder) or ".." in folder.split("/"):
        raise SourceRejected(f"{what} {shown(value)} is not a plain folder of the repository")
    if not any(path.startswith(f"{folder}/") for path in source.files):
        raise SourceRejected(f"{what} {shown(value)} holds no files", hint="Commit the built site, or name its folder.")
    return f"{folder}/"
