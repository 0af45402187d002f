"""Plans a static site: which folder is served."""

from __future__ import annotations

import re

from paasd.build.plan import Plan, Settings, Source
from paasd.errors import SourceRejected
from paasd.models import ProcessType, shown

_ROOT_LINE = re.compile(r"root:\s*(\S.*?)\s*(?:#.*)?", re.IGNORECASE)
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_COMMAND = "exec nginx -e stderr -c /etc/nginx/paasd.conf"


def plan(source: Source, settings: Settings) -> Plan | None:
    found = _root(source)
    if found is None:
        return None
    folder, reason = found
    return Plan(
        buildpack="static",
        process_types=(ProcessType("web", _COMMAND),),
        reasons=(reason,),
        user="10001:10001",
        bases=("static",),
        files=("nginx.conf",),
        values={"folder": folder},
    )


def _root(source: Source) -> tuple[str, str] | None:
    """The folder to serve, with a slash at its end unless it is the root, and which file decided it."""
    staticfile = source.read("Staticfile")
    if staticfile is not None:
        for line in staticfile.splitlines():
            if match := _ROOT_LINE.fullmatch(line.strip()):
                return _checked(source, match[1]), f"Staticfile: serving {match[1]}"
    if "index.html" in source.files:
        return "", "index.html: serving the root of the repository"
    if "public/index.html" in source.files:
        return "public/", "public/index.html: serving public/"
    return None if staticfile is None else ("", "Staticfile: serving the root of the repository")


def _checked(source: Source, value: str) -> str:
    folder = value.removeprefix("./").strip("/")
    if folder in ("", "."):
        return ""
    if not _FOLDER.fullmatch(folder) or ".." in folder.split("/"):
        raise SourceRejected(f"Staticfile: root {shown(value)} is not a plain folder of the repository")
    if not any(path.startswith(f"{folder}/") for path in source.files):
        raise SourceRejected(
            f"Staticfile: root {shown(value)} holds no files", hint="Commit the built site, or mend root."
        )
    return f"{folder}/"
