"""Finds the module that makes a web application, and says how a server is told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paasd.build.plan import Source

_NAMES = ("main", "app", "server", "wsgi", "asgi", "application", "api", "web", "__init__", "run", "index")
_NOT_APPS = {"tests", "test", "docs", "doc", "examples", "scripts", "migrations", "alembic", "node_modules"}
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_DEPTH, _MAX_FILES = 3, 60
_FACTORY = r"(?:create|make|build|get)_app(?:lication)?"
_CLASSES = {
    "Flask": "wsgi",
    "FlaskApp": "wsgi",
    "Bottle": "wsgi",
    "FastAPI": "asgi",
    "Starlette": "asgi",
    "Quart": "asgi",
    "Litestar": "asgi",
    "BlackSheep": "asgi",
}
_MADE = re.compile(rf"^(\w+)\s*(?::[^=\n]+)?=\s*(?:[\w.]+\.)?({'|'.join(_CLASSES)})\(", re.MULTILINE)
_DASH = re.compile(r"^(\w+)\s*=\s*\w+\.server\b", re.MULTILINE)
_CALLED = re.compile(rf"^(\w+)\s*(?::[^=\n]+)?=\s*(?:[\w.]+\.)?{_FACTORY}\(", re.MULTILINE)
# Without parameters, or with defaults for all of them.
_PARAMETER = r"(?:\w[^=,()]*=[^,()]+|\*\w*)"
_DEFINED = re.compile(
    rf"^def ({_FACTORY})\(\s*(?:{_PARAMETER}(?:,\s*{_PARAMETER})*,?\s*)?\)\s*(?:->[^:\n]+)?:", re.MULTILINE
)
_USED = re.compile(rf"\b({'|'.join(_CLASSES)})\(")
_IMPORT = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Application:
    path: str
    folder: str
    """Where Python has to look for the module; empty for the root."""
    module: str
    name: str
    kind: str
    """`wsgi` or `asgi`."""
    title: str
    is_factory: bool = False


def texts(source: Source, left_out: Sequence[str]) -> dict[str, str]:
    """Python files in which an application is looked for, the likeliest first."""
    return {path: source.read(path) or "" for path in _candidates(source, left_out)}


def application(source: Source, candidates: dict[str, str], packages: frozenset[str]) -> Application | None:
    """A variable that holds one wins over a function that makes one."""
    for path, text in candidates.items():
        if match := _MADE.search(text):
            return _found(source, path, text, match[1], _CLASSES[match[2]], match[2])
        if "Dash(" in text and (match := _DASH.search(text)):
            return _found(source, path, text, match[1], "wsgi", "Dash")
    for pattern, is_factory in ((_CALLED, False), (_DEFINED, True)):
        for path, text in candidates.items():
            if match := pattern.search(text):
                title = _title(text, candidates, packages)
                if title:
                    return _found(source, path, text, match[1], _CLASSES[title], title, is_factory)
    return None


def module_name(path: str) -> str:
    """Empty when it cannot be imported under a name."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts) if all(_MODULE.fullmatch(part) for part in parts) else ""


def folder_of(source: Source, path: str, text: str) -> str:
    """Where Python has to look, so that the module and what it imports are found: `src`, a folder whose modules import
    each other by their bare names, or the root."""
    if path.startswith("src/"):
        return "src" if "src/__init__.py" not in source.files else ""
    folder = path.rpartition("/")[0]
    if not folder or f"{folder}/__init__.py" in source.files:
        return ""
    siblings = {name for name in _IMPORT.findall(text) if f"{folder}/{name}.py" in source.files}
    return folder if any(f"{name}.py" not in source.files for name in siblings) else ""


def _found(
    source: Source, path: str, text: str, name: str, kind: str, title: str, is_factory: bool = False
) -> Application:
    folder = folder_of(source, path, text)
    module = module_name(path.removeprefix(f"{folder}/") if folder else path)
    return Application(path, folder, module, name, kind, title, is_factory)


def _title(text: str, candidates: dict[str, str], packages: frozenset[str]) -> str:
    """The framework behind a factory: what its file uses, else what another one does, else what is installed."""
    for each in (text, *candidates.values()):
        if match := _USED.search(each):
            return match[1]
    return next((title for title in _CLASSES if title.lower() in packages), "")


def _candidates(source: Source, left_out: Sequence[str]) -> list[str]:
    ranked = sorted((rank, path) for path, rank in _ranked(source, left_out))
    return [path for _, path in ranked[:_MAX_FILES]]


def _ranked(source: Source, left_out: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    outside = tuple(f"{folder}/" for folder in left_out)
    for path in source.files:
        folder, _, name = path.removesuffix(".py").rpartition("/")
        if not path.endswith(".py") or (folder and name not in _NAMES) or path.startswith(outside):
            continue
        folders = folder.split("/") if folder else []
        if len(folders) <= _MAX_DEPTH and not _NOT_APPS & set(folders) and module_name(path):
            yield path, (len(folders), _NAMES.index(name) if name in _NAMES else len(_NAMES))
