"""Loads `buildpacks/<language>/` and asks them, in their order, who can build a repository.

A folder holds `buildpack.toml` (name, order, bases, versions, what it looks for), `plan.py` with a pure
`plan(source, settings) -> Plan | None`, `Dockerfile.j2` and other `*.j2` files for the build context, recipes of base
images in `bases/`, and `example/`. `buildpacks/shared/` holds templates that all of them may use.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from paasd.build.plan import Plan, PlanFunction, Settings, Source
from paasd.build.recipes import BASE, Recipe, Recipes
from paasd.build.templates import environment
from paasd.errors import InvalidInput, NotFound, SourceRejected

_KEYS = {"name": str, "title": str, "description": str, "order": int, "looks_for": list}
_BASE_KEYS = {"packages", "needs", "versioned", "official", "official-packages"}
_BASE_NAME = re.compile(r"[a-z][a-z0-9-]*")
SHARED = "shared"


@dataclass(frozen=True)
class Versions:
    """Versions of a language and where they come from."""

    default: str = ""
    suites: Mapping[str, str] = field(default_factory=dict)
    """Suite of the distribution by version."""
    listed: tuple[str, ...] = ()
    """Versions that come from elsewhere, so that any suite will do; others of the kind may exist too."""
    official: tuple[str, ...] = ()
    """Versions that official images of a registry have beside those."""

    def on(self, suites: Sequence[str]) -> tuple[str, ...]:
        """Those that a host can make which has `suites`, the default first, then from new to old."""
        had = [version for version, suite in self.suites.items() if suite in suites] + list(self.listed)
        return tuple(sorted(had, key=lambda version: (version != self.default, [-n for n in _numbers(version)])))


@dataclass(frozen=True)
class Buildpack:
    name: str
    title: str
    description: str
    order: int
    looks_for: tuple[str, ...]
    """What makes it fit, for people."""
    versions: Versions
    recipes: Mapping[str, Recipe]
    """Base images it brings."""
    plan: PlanFunction
    templates: Mapping[str, str]
    """Texts of its `*.j2` files by the name they get in the build context."""
    folder: Path


class Buildpacks:
    """Those of every sub-folder with a `buildpack.toml`. Raises InvalidInput naming the file that is wrong."""

    def __init__(self, folder: Path) -> None:
        packs = [_load(path.parent) for path in folder.glob("*/buildpack.toml")]
        self._packs = {pack.name: pack for pack in sorted(packs, key=lambda pack: (pack.order, pack.name))}
        # Under their whole names for imports, and by the name in the build context for `Plan.files`.
        self._shared = {path.name: path.read_text() for path in sorted((folder / SHARED).glob("*.j2"))}

    def names(self) -> list[str]:
        return list(self._packs)

    def __getitem__(self, name: str) -> Buildpack:
        return self._packs[name]

    @property
    def shared(self) -> Mapping[str, str]:
        """Templates that all may import, by file name."""
        return self._shared

    @property
    def recipes(self) -> Recipes:
        """Base images of all buildpacks: what `BaseImages` is made with."""
        return Recipes({n: r for pack in self._packs.values() for n, r in pack.recipes.items()}, self._shared)

    def plan(
        self,
        source: Source,
        port: int,
        *,
        wanted: str | None = None,
        without: Sequence[str] = (),
        settings: Settings | None = None,
        suites: Sequence[str] = (),
        official: bool = False,
    ) -> Plan:
        """The plan of the first buildpack that fits and is not in `without`, or of the `wanted` one. `port` is $PORT of
        its web instances, `suites` are those of the distribution that this host can make base images of; `official`
        says whether a registry of official images is set.

        Raises SourceRejected saying what was looked for; blocks while it reads files.
        """
        settings = replace(settings or Settings(), builder_is_set=wanted is not None)
        for pack in self._candidates(wanted):
            if pack.name in without:
                continue
            beside = pack.versions.official if official else None
            plan = pack.plan(source, replace(settings, versions=pack.versions.on(suites), official=beside))
            if plan is not None:
                return replace(plan, values={"port": port, **plan.values})
        raise self._nothing_fits(source, wanted)

    def also_fit(self, source: Source, plan: Plan, suites: Sequence[str]) -> list[str]:
        """Names of the buildpacks that would have taken the repository if `plan`'s had not."""
        others = [pack for pack in self._packs.values() if pack.name != plan.buildpack]
        return [pack.name for pack in others if _fits(pack, source, suites)]

    def render(self, plan: Plan, bases: Mapping[str, str], app_id: str, suite: str) -> dict[str, str]:
        """The buildpack's own files for the build context, `Dockerfile` among them. `bases`: name → full image name;
        `suite` is that of the image the build runs in."""
        templates = self._packs[plan.buildpack].templates
        wanted = {**templates, **{name: self._shared[f"{name}.j2"] for name in plan.files}}
        found = environment({**self._shared, **wanted})
        values = {
            "app_id": app_id,
            "bases": dict(bases),
            "suite": suite,
            "packages": list(plan.packages),
            **plan.values,
        }
        return {name: found.get_template(name).render(values) for name in sorted(wanted)}

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


def _fits(pack: Buildpack, source: Source, suites: Sequence[str]) -> bool:
    try:
        return pack.plan(source, Settings(versions=pack.versions.on(suites), process_types=("web",))) is not None
    except SourceRejected:  # it knows the language, and finds something wrong with it
        return True


def _load(folder: Path) -> Buildpack:
    data = _data(folder / "buildpack.toml")
    if data["name"] != folder.name:
        raise InvalidInput(f"{folder}/buildpack.toml: name is {data['name']!r}, the folder is {folder.name!r}")
    versions = _versions(folder / "buildpack.toml", data["versions"])
    return Buildpack(
        name=data["name"],
        title=data["title"],
        description=data["description"],
        order=data["order"],
        looks_for=tuple(data["looks_for"]),
        versions=versions,
        recipes={name: _recipe(folder, name, values, versions) for name, values in data["bases"].items()},
        plan=_plan_function(folder / "plan.py"),
        templates={path.name.removesuffix(".j2"): path.read_text() for path in folder.glob("*.j2")},
        folder=folder,
    )


def _data(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    tables = {"bases": data.setdefault("bases", {}), "versions": data.setdefault("versions", {})}
    for key, kind in {**_KEYS, "bases": dict, "versions": dict}.items():
        if not isinstance(data.get(key), kind):
            raise InvalidInput(f"{path}: {key} must be given, as {kind.__name__}")
    if unknown := set(data) - set(_KEYS) - set(tables):
        raise InvalidInput(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    for name, values in data["bases"].items():
        if not _BASE_NAME.fullmatch(name) or name == BASE or not isinstance(values, dict) or set(values) - _BASE_KEYS:
            raise InvalidInput(f"{path}: bases.{name} must be a table of {', '.join(sorted(_BASE_KEYS))}")
    return data


def _versions(path: Path, data: Mapping[str, Any]) -> Versions:
    lists = (tuple(data.get(key, ())) for key in ("listed", "official"))
    found = Versions(data.get("default", ""), data.get("suites", {}), *lists)
    if set(data) - {"default", "suites", "listed", "official"} or (
        data and found.default not in {*found.suites, *found.listed}
    ):
        raise InvalidInput(f"{path}: versions must have suites or listed, and a default that is one of them")
    return found


def _recipe(folder: Path, name: str, values: Mapping[str, Any], versions: Versions) -> Recipe:
    template = folder / "bases" / f"{name}.j2"
    return Recipe(
        name,
        packages=tuple(values.get("packages", ())),
        needs=tuple(values.get("needs", (BASE,))),
        template=template.read_text() if template.is_file() else "",
        versioned=values.get("versioned", bool(versions.default)),
        suites=versions.suites,
        any_version=bool(versions.listed),
        official=values.get("official", ""),
        official_packages=tuple(values.get("official-packages", ())),
    )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _plan_function(path: Path) -> PlanFunction:
    """Of `plan.py`, which may import modules beside it: `from .versions import …`."""
    if not path.is_file():
        raise InvalidInput(f"{path} is missing")
    name = f"paasd_buildpack_{path.parent.name.replace('-', '_')}"
    for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[loaded]  # another folder's, or an older state of this one
    package = ModuleType(name)
    package.__path__ = [str(path.parent)]
    sys.modules[name] = package
    importlib.invalidate_caches()
    function = getattr(importlib.import_module(f"{name}.plan"), "plan", None)
    if not callable(function):
        raise InvalidInput(f"{path} has no function plan(source, settings)")
    checked: PlanFunction = function
    return checked
