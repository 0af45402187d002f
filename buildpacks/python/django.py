"""What is special about Django: its project's package, static files, WSGI or ASGI."""

from __future__ import annotations

import re
from dataclasses import dataclass

from paasd.build.plan import Source

from .modules import module_name

_SETTINGS = re.compile(r"DJANGO_SETTINGS_MODULE[\"']\s*,\s*[\"']([\w.]+)[\"']")
_STATIC_ROOT = re.compile(r"^\s*STATIC_ROOT\s*(?::[^=]+)?=\s*(?!None)\S", re.MULTILINE)
_SERVERS_OF_ASGI = {"daphne", "uvicorn", "hypercorn", "channels", "uvicorn-worker"}


@dataclass(frozen=True)
class Django:
    folder: str
    """Of manage.py; empty for the root."""
    module: str
    """`blog.wsgi` or `blog.asgi`."""
    path: str
    kind: str
    collects_static: bool


def find(source: Source, packages: frozenset[str]) -> Django | None:
    """None unless there is a manage.py at most one folder down, and a module for a server beside the settings."""
    places = sorted((path.count("/"), path) for path in source.files if path.rpartition("/")[2] == "manage.py")
    for depth, manage in places:
        folder = manage.rpartition("/")[0]
        module = _module(source, manage, folder, packages)
        if depth <= 1 and module and (not folder or module_name(f"{folder}/x.py")):
            path, kind = module
            inner = path.removeprefix(f"{folder}/") if folder else path
            return Django(folder, module_name(inner), path, kind, _collects_static(source))
    return None


def _module(source: Source, manage: str, folder: str, packages: frozenset[str]) -> tuple[str, str] | None:
    start = f"{folder}/" if folder else ""
    found = [path for path in source.files if path.startswith(start) and path.endswith(("/wsgi.py", "/asgi.py"))]
    found = [path for path in found if module_name(path.removeprefix(start))]
    if match := _SETTINGS.search(source.read(manage) or ""):
        package = match[1].split(".")[0]
        found = [path for path in found if path.startswith(f"{start}{package}/")] or found
    asgi_first = (bool(packages & _SERVERS_OF_ASGI) and "gunicorn" not in packages) or "channels" in packages
    wanted = "asgi" if asgi_first else "wsgi"
    ranked = sorted(found, key=lambda path: (not path.endswith(f"{wanted}.py"), path.count("/"), path))
    return (ranked[0], ranked[0].rpartition("/")[2].removesuffix(".py")) if ranked else None


def _collects_static(source: Source) -> bool:
    for path in source.files:
        *folders, name = path.split("/")
        is_settings = name in ("settings.py", "base.py", "production.py", "prod.py", "common.py", "conf.py")
        if (
            is_settings
            and len(folders) <= 3
            and (name == "settings.py" or "settings" in folders or "config" in folders)
        ):
            if _STATIC_ROOT.search(source.read(path) or ""):
                return True
    return False
