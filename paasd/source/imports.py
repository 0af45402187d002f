"""Files of other platforms in a repository, read as build settings: Railway, Nixpacks, Railpack, Cloud Native
Buildpacks and Heroku's `.buildpacks`. What they say and paasd does not do is named, never silently dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paasd.build_settings import AUTOMATIC, KEYS
from paasd.errors import SourceRejected
from paasd.names import shown
from paasd.source.documents import json_document, table, toml_document

Reader = Callable[[str, str, "Import"], None]

_LANGUAGES = {
    "node": "nodejs",
    "nodejs": "nodejs",
    "python": "python",
    "go": "go",
    "golang": "go",
    "rust": "rust",
    "php": "php",
    "ruby": "ruby",
    "static": "static",
    "staticfile": "static",
    "nginx": "static",
}
_BUILDPACK_NAME = re.compile(
    r"(?:heroku-|paketo-)?(?:buildpack-|community-)?([a-z]+)(?:-?buildpack)?(?:\.git)?(?:#.*|@.*)?"
)


@dataclass
class Import:
    """What one file says: settings by key as (value, key in the file)."""

    settings: dict[str, tuple[str, str]] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def take(self, key: str, value: Any, where: str) -> None:
        if value not in (None, "", [], {}):
            self.settings[key] = (_joined(value, where), where)


def read(name: str, text: str) -> Import:
    """Raises SourceRejected for a file that is not right."""
    found = Import()
    FILES[name](name, text, found)
    return found


def language(buildpack: str) -> str | None:
    """paasd's buildpack for the address or name of another platform's, as `heroku/nodejs`; None when there is none."""
    last = buildpack.strip().rstrip("/").rpartition("/")[2].lower()
    match = _BUILDPACK_NAME.fullmatch(last)
    return _LANGUAGES.get(match[1]) if match else None


def choose(names: list[str], where: str, file: str, found: Import) -> None:
    """The last of several that is known decides, as its process types do on Heroku."""
    known = [name for name in map(language, names) if name]
    found.unused += [f"{file}: {shown(name)}" for name in names if not language(name)]
    if known:
        found.take("builder", known[-1], where)


def _railway(name: str, text: str, found: Import) -> None:
    document = toml_document(name, text) if name.endswith(".toml") else json_document(name, text)
    build, deploy = table(name, document, "build"), table(name, document, "deploy")
    builder = str(build.get("builder", "")).upper()
    if builder:
        found.take("builder", "dockerfile" if builder == "DOCKERFILE" else AUTOMATIC, "build.builder")
    found.take("build-command", build.get("buildCommand"), "build.buildCommand")
    found.take("dockerfile", build.get("dockerfilePath"), "build.dockerfilePath")
    found.take("watch-paths", " ".join(_strings(build.get("watchPatterns", []), name)), "build.watchPatterns")
    found.take("start-command", deploy.get("startCommand"), "deploy.startCommand")
    found.take("release-command", deploy.get("preDeployCommand"), "deploy.preDeployCommand")
    if path := deploy.get("healthcheckPath"):
        check: dict[str, Any] = {"type": "startup", "path": str(path)}
        if isinstance(timeout := deploy.get("healthcheckTimeout"), int):
            # Railway gives the whole start that long; an attempt a second comes to the same.
            check |= {"attempts": max(1, timeout), "wait": 1}
        found.checks = {"web": [check]}
    used = {"build": {"builder", "buildCommand", "dockerfilePath", "watchPatterns"}}
    used["deploy"] = {"startCommand", "preDeployCommand", "healthcheckPath", "healthcheckTimeout"}
    for section, values in (("build", build), ("deploy", deploy)):
        found.unused += [f"{name}: {section}.{key}" for key in sorted(set(values) - used[section])]


def _nixpacks(name: str, text: str, found: Import) -> None:
    document = toml_document(name, text) if name.endswith(".toml") else json_document(name, text)
    phases = table(name, document, "phases")
    setup = table(name, phases, "setup")
    found.take("packages", " ".join(_strings(setup.get("aptPkgs", []), name)), "phases.setup.aptPkgs")
    for phase, key in (("install", "install-command"), ("build", "build-command")):
        _commands(table(name, phases, phase).get("cmds"), key, f"phases.{phase}.cmds", name, found)
    found.take("start-command", table(name, document, "start").get("cmd"), "start.cmd")
    choose(
        [provider for provider in _strings(document.get("providers", []), name) if provider != "..."],
        "providers",
        name,
        found,
    )
    found.unused += [f"{name}: phases.setup.{key}" for key in sorted(set(setup) - {"aptPkgs"})]


def _railpack(name: str, text: str, found: Import) -> None:
    document = json_document(name, text)
    if provider := document.get("provider"):
        choose([str(provider)], "provider", name, found)
    steps, deploy = table(name, document, "steps"), table(name, document, "deploy")
    for step, key in (("install", "install-command"), ("build", "build-command")):
        _commands(table(name, steps, step).get("commands"), key, f"steps.{step}.commands", name, found)
    found.take("start-command", deploy.get("startCommand"), "deploy.startCommand")
    packages = [*_strings(document.get("buildAptPackages", []), name), *_strings(deploy.get("aptPackages", []), name)]
    found.take("packages", " ".join(package for package in packages if package != "..."), "aptPackages")
    known = [version for key, version in table(name, document, "packages").items() if language(key)]
    if known:
        found.take("version", known[0], "packages")


def _cloud_native(name: str, text: str, found: Import) -> None:
    """project.toml, old and new: https://buildpacks.io/docs/reference/config/project-descriptor/"""
    document = toml_document(name, text)
    new = table(name, table(name, document, "io"), "buildpacks")
    groups = [*_list(new.get("group")), *_list(table(name, document, "build").get("buildpacks"))]
    choose([str(entry.get("id", "")) for entry in groups if isinstance(entry, dict)], "buildpacks", name, found)


def _heroku(name: str, text: str, found: Import) -> None:
    choose([line.strip() for line in text.splitlines() if line.strip()], "lines", name, found)


def _own(name: str, text: str, found: Import) -> None:
    document = toml_document(name, text)
    build = table(name, document, "build")
    wrong = [f"build.{key}" for key in build if key not in KEYS] + [key for key in document if key != "build"]
    if wrong:
        raise SourceRejected(f"{name}: unknown key {shown(wrong[0])}", hint=f"[build] may have: {', '.join(KEYS)}")
    for key, value in build.items():
        found.take(key, value, f"build.{key}")


FILES: Mapping[str, Reader] = {
    "railway.toml": _railway,
    "railway.json": _railway,
    "nixpacks.toml": _nixpacks,
    "nixpacks.json": _nixpacks,
    "railpack.json": _railpack,
    "project.toml": _cloud_native,
    ".buildpacks": _heroku,
    "paasd.toml": _own,
}
"""Those that come first decide."""


def _commands(value: Any, key: str, where: str, name: str, found: Import) -> None:
    """Commands run one after the other, each only after the one before it succeeded."""
    commands = [str(entry.get("cmd", "")) if isinstance(entry, dict) else str(entry) for entry in _list(value)]
    if "..." in commands:
        found.unused.append(f"{name}: {where}, since it adds to the default commands")
        return
    found.take(key, [command for command in commands if command], where)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _strings(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise SourceRejected(f"{name}: {shown(str(value))} must be a list of strings")
    return value


def _joined(value: Any, where: str) -> str:
    if isinstance(value, list):
        return " && ".join(str(entry) for entry in value)
    if isinstance(value, dict):
        raise SourceRejected(f"{where} must be a string")
    return str(value)
