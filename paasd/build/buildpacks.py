"""Loads `buildpacks/<language>/` and asks them, in their order, who can build a repository.

A folder holds `buildpack.toml` (name, order, bases, what it looks for), `plan.py` with a pure
`plan(source, settings) -> Plan | None`, `Dockerfile.j2` and other `*.j2` files for the build context, and `example/`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jinja2

from paasd.build.context import Source, joined, repository_context
from paasd.build.pip_config import host_pip_config
from paasd.errors import InvalidInput, NotFound, SourceRejected
from paasd.models import Plan

_KEYS = {"name": str, "title": str, "description": str, "order": int, "looks_for": list}
__all__ = ["Buildpack", "Buildpacks", "Source", "Tree"]

_BASE_NAME = re.compile(r"[a-z][a-z0-9-]*")


class Tree(Source, Protocol):
    def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        """All files as an uncompressed tar, paths under `prefix`."""


PlanFunction = Callable[[Source, Mapping[str, str]], Plan | None]


@dataclass(frozen=True)
class Buildpack:
    name: str
    title: str
    description: str
    order: int
    looks_for: tuple[str, ...]
    """What makes it fit, for people."""
    bases: Mapping[str, tuple[str, ...]]
    """Base images it brings: name → packages of the distribution."""
    plan: PlanFunction
    templates: Mapping[str, str]
    """Texts of its `*.j2` files by the name they get in the build context."""
    folder: Path


class Buildpacks:
    """Those of every sub-folder with a `buildpack.toml`. Raises InvalidInput naming the file that is wrong."""

    def __init__(self, folder: Path) -> None:
        packs = [_load(path.parent) for path in folder.glob("*/buildpack.toml")]
        self._packs = {pack.name: pack for pack in sorted(packs, key=lambda pack: (pack.order, pack.name))}

    def names(self) -> list[str]:
        return list(self._packs)

    @property
    def bases(self) -> dict[str, tuple[str, ...]]:
        """Base images of all buildpacks and the packages in each: what `BaseImages` is made with."""
        return {name: packages for pack in self._packs.values() for name, packages in pack.bases.items()}

    def plan(
        self, source: Source, port: int, *, wanted: str | None = None, settings: Mapping[str, str] | None = None
    ) -> Plan:
        """The plan of the first buildpack that fits, or of the `wanted` one. `port` is $PORT of its web instances.

        Raises SourceRejected saying what was looked for; blocks while it reads files.
        """
        for pack in self._candidates(wanted):
            if (plan := pack.plan(source, settings or {})) is not None:
                return replace(plan, values={"port": port, **plan.values})
        raise self._nothing_fits(source, wanted)

    def render(self, plan: Plan, bases: Mapping[str, str], app_id: str) -> dict[str, str]:
        """The buildpack's own files for the build context, `Dockerfile` among them. `bases`: name → full image name."""
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
        )
        values = {"app_id": app_id, "bases": dict(bases), **plan.values}
        templates = self._packs[plan.buildpack].templates
        return {name: environment.from_string(text).render(values) for name, text in sorted(templates.items())}

    async def context(
        self, plan: Plan, checkout: Tree, bases: Mapping[str, str], app_id: str
    ) -> tuple[str, AsyncIterator[bytes]]:
        """Path of the Dockerfile in the build context, and the context itself. Raises SourceRejected."""
        if plan.in_repository:
            return plan.dockerfile, repository_context(checkout, checkout.tar(), plan.dockerfile)
        files = self.render(plan, bases, app_id) | {"pip.conf": await asyncio.to_thread(host_pip_config)}
        return "Dockerfile", joined(files, checkout.tar("app/"))

    def _candidates(self, wanted: str | None) -> list[Buildpack]:
        if wanted is None:
            return list(self._packs.values())
        if wanted not in self._packs:
            raise NotFound(f"no buildpack is called {wanted}", hint=f"There are: {', '.join(self._packs)}")
        return [self._packs[wanted]]

    def _nothing_fits(self, source: Source, wanted: str | None) -> SourceRejected:
        looked = [f"{pack.title}: {' or '.join(pack.looks_for)}" for pack in self._candidates(wanted)]
        top = sorted({path.partition("/")[0] for path in source.files})
        seen = ", ".join(ascii(name)[1:-1] for name in top[:10]) + (", …" if len(top) > 10 else "")
        return SourceRejected(
            f"no buildpack recognises this repository; its root holds: {seen or 'nothing'}. "
            f"Looked for: {'; '.join(looked)}",
            hint="Add one of these files, or a Dockerfile, to the root of the repository; then commit and push again.",
        )


def _load(folder: Path) -> Buildpack:
    data = _data(folder / "buildpack.toml")
    if data["name"] != folder.name:
        raise InvalidInput(f"{folder}/buildpack.toml: name is {data['name']!r}, the folder is {folder.name!r}")
    templates = {path.name.removesuffix(".j2"): path.read_text() for path in folder.glob("*.j2")}
    return Buildpack(
        name=data["name"],
        title=data["title"],
        description=data["description"],
        order=data["order"],
        looks_for=tuple(data["looks_for"]),
        bases={name: tuple(packages) for name, packages in data["bases"].items()},
        plan=_plan_function(folder / "plan.py"),
        templates=templates,
        folder=folder,
    )


def _data(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    bases = data.setdefault("bases", {})
    for key, kind in _KEYS.items():
        if not isinstance(data.get(key), kind):
            raise InvalidInput(f"{path}: {key} must be given, as {kind.__name__}")
    if unknown := set(data) - set(_KEYS) - {"bases"}:
        raise InvalidInput(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    for name, packages in bases.items():
        if not _BASE_NAME.fullmatch(name) or not isinstance(packages, list):
            raise InvalidInput(f"{path}: bases.{name} must be a list of packages")
    return data


def _plan_function(path: Path) -> PlanFunction:
    name = f"paasd_buildpack_{path.parent.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidInput(f"{path} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, "plan", None)
    if not callable(function):
        raise InvalidInput(f"{path} has no function plan(source, settings)")
    checked: PlanFunction = function
    return checked
