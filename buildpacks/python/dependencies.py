"""Which tool installs the dependencies, from which files, with which commands."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from paasd.build.plan import Settings, Source
from paasd.errors import SourceRejected

from .documents import package, packages, pyproject, strings, table, toml
from .requirements import Requirements

GENERATED = "/run/paasd/dependencies.txt"
_REQUIREMENTS = (
    "requirements.txt",
    "requirements/production.txt",
    "requirements/prod.txt",
    "requirements/base.txt",
    "requirements-prod.txt",
    "requirements/requirements.txt",
)
_LOCKED_NAME = re.compile(r'^name = "([^"]+)"', re.MULTILINE)
# Hashes cannot be asked of these, and a path needs the code to be there.
_UNHASHED = re.compile(r'^type = "(?:git|directory|file|url)"|^(?:git|path|url) = "', re.MULTILINE)
_PATHS = re.compile(r'^type = "(?:directory|file)"|^path = "|source = \{ (?:editable|directory|path) = ', re.MULTILINE)
_EXPORTED = "/tmp/requirements.txt"
_MIRRORED = "grep -qs '^default = true' /etc/uv/uv.toml"


@dataclass(frozen=True)
class Dependencies:
    tool: str = "pip"
    files: tuple[str, ...] = ()
    """What the tool reads: copied before the code."""
    steps: tuple[str, ...] = ()
    """Commands that install the dependencies."""
    app_step: str = ""
    """Installs the app itself, when its code is there."""
    needs_code: bool = False
    """Whether `steps` need more of the repository than `files`."""
    generated: tuple[str, ...] = ()
    """Requirements that pyproject.toml lists, for a file of ours."""
    direct: frozenset[str] = frozenset()
    """Packages that the app names."""
    every: frozenset[str] = frozenset()
    """Those, and what they need, as far as files say it."""
    reasons: tuple[str, ...] = ()
    src_is_installed: bool = field(default=False)


Finder = Callable[[Source], Dependencies | None]


def is_python(source: Source) -> bool:
    """Whether a file says so that other languages do not have."""
    if any(path in source.files for path in ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile", "setup.py", "manage.py")):
        return True
    if any(path in source.files for path in _REQUIREMENTS):
        return True
    document = pyproject(source) if "pyproject.toml" in source.files else {}
    return bool(table(document, "project") or table(document, "tool", "poetry"))


def find(source: Source, settings: Settings) -> Dependencies:
    if settings.install_command:
        return _by_setting(source, settings.install_command)
    found = [(name, made) for name, finder in _FINDERS.items() if (made := finder(source)) is not None]
    if not found:
        return Dependencies(reasons=("no file lists dependencies: nothing to install",))
    (name, first), *others = found
    beside = [other for other, _ in others if other not in _SAME_FILE.get(name, ())]
    if beside:
        note = f"{name} comes before {', '.join(beside)}; remove it, or set install-command, to use another"
        return replace(first, reasons=(*first.reasons, note))
    return first


def _by_setting(source: Source, command: str) -> Dependencies:
    """With the tool whose files there are, so that the command finds it."""
    made = Dependencies()
    for finder in _FINDERS.values():
        with contextlib.suppress(SourceRejected):
            if found := finder(source):
                made = found
                break
    reason = "the setting install-command installs, again after every change"
    return replace(made, steps=(command,), app_step="", needs_code=True, generated=(), reasons=(reason,))


def _uv(source: Source) -> Dependencies | None:
    lock = source.read("uv.lock")
    if lock is None:
        return None
    document = _project_of(source, "uv.lock")
    workspace = bool(table(document, "tool", "uv", "workspace")) or bool(_PATHS.search(_without_own(lock)))
    sync = "uv sync --locked --no-dev"
    # A host that has an index of its own cannot use the addresses in the lock.
    export = f"uv export -q --frozen --no-dev --no-emit-project -o {_EXPORTED} && uv pip install -r {_EXPORTED}"
    step = f"if {_MIRRORED}; then {export}; else {sync} --no-install-project; fi"
    is_package = bool(table(document, "tool", "uv").get("package", "build-system" in document))
    app_step = f"if {_MIRRORED}; then uv pip install --no-deps .; else {sync} --no-editable --inexact; fi"
    return Dependencies(
        tool="uv",
        files=_present(source, "pyproject.toml", "uv.lock", "uv.toml"),
        steps=(step,),
        app_step=app_step if is_package else "",
        needs_code=workspace or "dependencies" in strings(table(document, "project").get("dynamic")),
        direct=_project_packages(document),
        every=_locked(lock) | _project_packages(document),
        reasons=("uv.lock: uv sync --locked installs it, without development groups",),
        src_is_installed=is_package,
    )


def _poetry(source: Source) -> Dependencies | None:
    lock = source.read("poetry.lock")
    document = pyproject(source)
    poetry = table(document, "tool", "poetry")
    if lock is None:
        if table(poetry, "dependencies") and "dependencies" not in table(document, "project"):
            raise SourceRejected(
                "pyproject.toml lists dependencies for Poetry, but there is no poetry.lock",
                hint="Run: poetry lock, then: git add poetry.lock, commit and push again.",
            )
        return None
    _project_of(source, "poetry.lock")
    hashes = " --without-hashes" if _UNHASHED.search(lock) else ""
    export = f"poetry export -f requirements.txt{hashes} -o {_EXPORTED}"
    names = [name for name in table(poetry, "dependencies") if name != "python"]
    return Dependencies(
        tool="poetry",
        files=_present(source, "pyproject.toml", "poetry.lock"),
        steps=(f"{export} && pip install --no-deps -r {_EXPORTED}",),
        app_step="pip install --no-deps ." if _is_package(source, document) else "",
        needs_code=bool(_PATHS.search(lock)),
        direct=packages(names) | _project_packages(document),
        every=packages(names) | _locked(lock) | _project_packages(document),
        reasons=("poetry.lock: exported by Poetry, without development groups, and installed by pip",),
        src_is_installed=_is_package(source, document),
    )


def _pdm(source: Source) -> Dependencies | None:
    lock = source.read("pdm.lock")
    if lock is None:
        return None
    document = _project_of(source, "pdm.lock")
    hashes = " --no-hashes" if _UNHASHED.search(lock) else ""
    export = f"pdm lock --check && pdm export --prod -f requirements{hashes} -o {_EXPORTED}"
    return Dependencies(
        tool="pdm",
        files=_present(source, "pyproject.toml", "pdm.lock", "pdm.toml"),
        steps=(f"{export} && pip install --no-deps -r {_EXPORTED}",),
        app_step="pip install --no-deps ." if _is_package(source, document) else "",
        needs_code=bool(_PATHS.search(lock)) or "dependencies" in strings(table(document, "project").get("dynamic")),
        direct=_project_packages(document),
        every=_locked(lock) | _project_packages(document),
        reasons=("pdm.lock: exported by pdm, without development groups, and installed by pip",),
        src_is_installed=_is_package(source, document),
    )


def _pipenv(source: Source) -> Dependencies | None:
    lock, pipfile = source.read("Pipfile.lock"), toml(source, "Pipfile")
    if lock is None:
        if "Pipfile" not in source.files or not table(pipfile, "packages"):
            return None
        raise SourceRejected(
            "there is a Pipfile, but no Pipfile.lock",
            hint="Run: pipenv lock, then: git add Pipfile.lock, commit and push again.",
        )
    locked = _json_table(lock, "Pipfile.lock", "default")
    entries = [entry for entry in locked.values() if isinstance(entry, dict)]
    local = any("path" in entry or "file" in entry for entry in entries)
    hashes = "" if local or any("git" in entry for entry in entries) else " --hash"
    # The source that every Pipfile begins with is the public index, in whose place the host may have its own.
    sources = [entry.get("name") for entry in pipfile.get("source", []) if isinstance(entry, dict)]
    kept = "| sed '/^-i /d' " if sources in ([], ["pypi"]) else ""
    export = f"pipenv verify && pipenv requirements{hashes} {kept}> {_EXPORTED}"
    names = packages(table(pipfile, "packages"))
    return Dependencies(
        tool="pipenv",
        files=_present(source, "Pipfile", "Pipfile.lock"),
        steps=(f"{export} && pip install --no-deps -r {_EXPORTED}",),
        needs_code=local,
        direct=names,
        every=names | packages(locked),
        reasons=("Pipfile.lock: exported by Pipenv and installed by pip",),
    )


def _pip(source: Source) -> Dependencies | None:
    path = next((path for path in _REQUIREMENTS if path in source.files), None)
    if path is None:
        return None
    found = Requirements(source, path)
    again = "installed again only when it changes"
    if found.needs_code:
        again = "it refers to the app's own code, so that packages are installed again after every change"
    names = ", ".join(found.files)
    return Dependencies(
        files=tuple(found.files),
        steps=(f"pip install -r {path}",),
        needs_code=found.needs_code,
        direct=frozenset(found.names),
        every=frozenset(found.names),
        reasons=(f"{names}: {again}" if found.needs_code else f"{names}: packages are {again}",),
    )


def _project(source: Source) -> Dependencies | None:
    document = pyproject(source)
    project = table(document, "project")
    if not project:
        return None
    dynamic = "dependencies" in strings(project.get("dynamic"))
    listed = tuple(strings(project.get("dependencies")))
    installed = dynamic or _is_package(source, document)
    reason = "pyproject.toml: its dependencies are installed by pip"
    if dynamic:
        reason = "pyproject.toml: pip installs it as a whole after every change, because its dependencies are dynamic"
    return Dependencies(
        files=() if dynamic else ("pyproject.toml",),
        steps=(f"pip install -r {GENERATED}",) if listed else (),
        app_step="pip install ." if dynamic else "pip install --no-deps ." if installed else "",
        generated=listed,
        direct=packages(listed),
        every=packages(listed),
        reasons=(f"{reason}, then the app itself" if installed and not dynamic else reason,),
        src_is_installed=installed,
    )


def _setup(source: Source) -> Dependencies | None:
    document = pyproject(source)
    if "setup.py" in source.files:
        path = "setup.py"
    elif "install_requires" in (source.read("setup.cfg") or ""):
        path = "setup.cfg"
    elif table(document, "tool", "poetry") and table(document, "build-system"):
        path = "pyproject.toml"
    else:
        return None
    return Dependencies(
        app_step="pip install .",
        direct=_words(source.read(path)),
        every=_words(source.read(path)),
        reasons=(f"{path}: pip installs the app and what it needs, again after every change",),
        src_is_installed=True,
    )


_FINDERS: Mapping[str, Finder] = {
    "uv.lock": _uv,
    "poetry.lock": _poetry,
    "pdm.lock": _pdm,
    "Pipfile.lock": _pipenv,
    "requirements.txt": _pip,
    "pyproject.toml": _project,
    "setup.py": _setup,
}
_SAME_FILE: Mapping[str, tuple[str, ...]] = dict.fromkeys(_FINDERS, ("pyproject.toml", "setup.py"))
"""What is no second list of dependencies beside another one, but describes the app."""


def _project_of(source: Source, lock: str) -> dict[str, Any]:
    if "pyproject.toml" not in source.files:
        raise SourceRejected(f"there is a {lock}, but no pyproject.toml", hint="Commit pyproject.toml, and push again.")
    return pyproject(source)


def _is_package(source: Source, document: Mapping[str, Any]) -> bool:
    """Whether running the app needs it to be installed: it has commands of its own, or its code is where Python does
    not look by itself, or it is a package of the project's name."""
    project, poetry = table(document, "project"), table(document, "tool", "poetry")
    if not table(document, "build-system") or poetry.get("package-mode") is False:
        return False
    if table(document, "tool", "pdm").get("distribution") is False:
        return False
    name = package(str(project.get("name") or poetry.get("name") or "")).replace("-", "_")
    scripts = any(table(each, "scripts") or table(each, "entry-points") for each in (project, poetry))
    in_src = any(path.startswith("src/") and path.endswith(".py") for path in source.files)
    return scripts or in_src or (bool(name) and f"{name}/__init__.py" in source.files)


def _project_packages(document: Mapping[str, Any]) -> frozenset[str]:
    return packages(strings(table(document, "project").get("dependencies")))


def _present(source: Source, *paths: str) -> tuple[str, ...]:
    return tuple(path for path in paths if path in source.files)


def _locked(lock: str) -> frozenset[str]:
    return packages(_LOCKED_NAME.findall(lock))


def _without_own(lock: str) -> str:
    """A lock without what it says about the app itself."""
    return re.sub(r'source = \{ (?:editable|virtual) = "\." \}', "", lock)


def _words(text: str | None) -> frozenset[str]:
    return packages(re.findall(r"[A-Za-z][\w.-]*", text or ""))


def _json_table(text: str, path: str, key: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SourceRejected(f"{path} is not valid JSON: {error}", hint="Make it anew with: pipenv lock") from None
    return table(document, key) if isinstance(document, dict) else {}
