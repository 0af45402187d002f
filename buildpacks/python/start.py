"""What runs as `web` when no Procfile says it, and which server has to be installed for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from paasd.build.plan import Source
from paasd.errors import SourceRejected

from . import django
from .dependencies import Dependencies
from .documents import pyproject, table
from .modules import Application, application, folder_of, module_name, texts

_SCRIPTS = ("main.py", "app.py", "server.py", "run.py", "src/main.py", "src/app.py")
_STREAMLIT = re.compile(r"^\s*(?:import streamlit|from streamlit)\b", re.MULTILINE)
_STREAMLIT_NAMES = ("streamlit_app.py", "app.py", "main.py", "Home.py", "Hello.py", "home.py", "hello.py")
_GRADIO = re.compile(r"^\s*(?:import gradio|from gradio)\b", re.MULTILINE)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.py")
_COMMAND_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

SERVERS = {"gunicorn": "gunicorn>=23,<27", "uvicorn": "uvicorn>=0.34,<1"}
"""Installed when an app needs one and names none; the ranges are of versions that take the commands here."""


@dataclass(frozen=True)
class Start:
    command: str
    reason: str
    server: str = ""
    """One of SERVERS that the app's own requirements do not name."""


def find(source: Source, dependencies: Dependencies, left_out: Sequence[str]) -> Start:
    """Raises SourceRejected when nothing says how to start the app."""
    packages = dependencies.direct
    candidates = texts(source, left_out)
    found = _django(source, packages) or _streamlit(source, packages, candidates, named=True)
    if found is None and (made := application(source, candidates, packages)):
        found = _served(made, packages, installed=dependencies.src_is_installed)
    found = found or _streamlit(source, packages, candidates) or _gradio(source, packages, candidates)
    return found or _script(source) or _entry_point(source, dependencies) or _nothing(source)


def _django(source: Source, packages: frozenset[str]) -> Start | None:
    found = django.find(source, packages)
    if found is None:
        return None
    if found.kind == "asgi":
        made = Application(found.path, found.folder, found.module, "application", "asgi", "Django")
        return _served(made, packages)
    made = Application(found.path, found.folder, found.module, "", "wsgi", "Django")
    return _served(made, packages)


def _served(made: Application, packages: frozenset[str], *, installed: bool = False) -> Start:
    folder = "" if installed and made.folder == "src" else made.folder
    target = f"{made.module}:{made.name}" if made.name else made.module
    what = f"{made.path} makes a {made.title} application"
    if made.name:
        what += f" in {made.name}()" if made.is_factory else f" named {made.name}"
    if made.kind == "wsgi":
        return _wsgi(target, folder, what, packages, made.is_factory)
    return _asgi(target, folder, what, packages, made.is_factory)


def _wsgi(target: str, folder: str, what: str, packages: frozenset[str], is_factory: bool) -> Start:
    if "waitress" in packages and "gunicorn" not in packages and not folder:
        call = "--call " if is_factory else ""
        target = target if ":" in target else f"{target}:application"
        return Start(f"waitress-serve --listen=0.0.0.0:$PORT {call}{target}", f"{what}, served by waitress")
    place = f"--chdir {folder} " if folder else ""
    quoted = shlex.quote(f"{target}()" if is_factory else target)
    return _with_server("gunicorn", f"--bind 0.0.0.0:$PORT --access-logfile - {place}{quoted}", what, packages)


def _asgi(target: str, folder: str, what: str, packages: frozenset[str], is_factory: bool) -> Start:
    if "uvicorn" not in packages and not folder and not is_factory:
        if "hypercorn" in packages:
            return Start(f"hypercorn --bind 0.0.0.0:$PORT {target}", f"{what}, served by hypercorn")
        if "daphne" in packages:
            return Start(f"daphne -b 0.0.0.0 -p $PORT {target}", f"{what}, served by daphne")
    place = f"--app-dir {folder} " if folder else ""
    factory = " --factory" if is_factory else ""
    return _with_server("uvicorn", f"--host 0.0.0.0 --port $PORT {place}{target}{factory}", what, packages)


def _with_server(server: str, arguments: str, what: str, packages: frozenset[str]) -> Start:
    if server in packages:
        return Start(f"{server} {arguments}", f"{what}, served by {server}")
    reason = f"{what}, served by {server}, which is added because the app names no server of its own"
    return Start(f"{server} {arguments}", reason, server)


def _streamlit(
    source: Source, packages: frozenset[str], candidates: dict[str, str], *, named: bool = False
) -> Start | None:
    """`named` looks only for the file that Streamlit's own hosting runs."""
    if "streamlit" not in packages:
        return None
    names = _STREAMLIT_NAMES[:1] if named else (*_STREAMLIT_NAMES, *candidates)
    for path in names:
        if _PLAIN_PATH.fullmatch(path) and _STREAMLIT.search(source.read(path) or ""):
            flags = "--server.address 0.0.0.0 --server.port $PORT --server.headless true"
            command = f"streamlit run {path} {flags} --browser.gatherUsageStats false"
            return Start(command, f"{path} imports Streamlit: run by it")
    return None


def _gradio(source: Source, packages: frozenset[str], candidates: dict[str, str]) -> Start | None:
    for path, text in candidates.items() if "gradio" in packages else ():
        if _GRADIO.search(text) and _PLAIN_PATH.fullmatch(path):
            environ = "GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=$PORT GRADIO_ANALYTICS_ENABLED=False"
            return Start(f"{environ} python {path}", f"{path} imports Gradio: run with its address and port set")
    return None


def _script(source: Source) -> Start | None:
    for path in _SCRIPTS:
        if path in source.files:
            return Start(f"python {path}", f"{path}: run as it is")
    return None


def _entry_point(source: Source, dependencies: Dependencies) -> Start | None:
    """The only command that the project defines, or a package that can be run."""
    document = pyproject(source)
    scripts = {**table(document, "tool", "poetry", "scripts"), **table(document, "project", "scripts")}
    if dependencies.app_step and len(scripts) == 1 and _COMMAND_NAME.fullmatch(name := next(iter(scripts))):
        return Start(name, f"pyproject.toml: {name} is the only command it defines")
    for path in sorted(source.files, key=lambda path: (path.count("/"), path)):
        if path.endswith("/__main__.py") and (module := module_name(path.removesuffix("/__main__.py") + ".py")):
            folder = folder_of(source, path, "")
            if folder and not dependencies.src_is_installed:
                return Start(
                    f"PYTHONPATH={folder} python -m {module.removeprefix(f'{folder}.')}", f"{path}: run by name"
                )
            return Start(f"python -m {module.removeprefix('src.') if folder else module}", f"{path}: run by its name")
    return None


def _nothing(source: Source) -> Start:
    scripts = ", ".join(_SCRIPTS[:4])
    raise SourceRejected(
        f"this is a Python app, but nothing says how to start it: no Procfile, no {scripts}, no manage.py",
        hint="Add a file named Procfile with a line like: web: gunicorn --bind 0.0.0.0:$PORT app:app",
    )
