"""What base images are made of: recipes of the buildpacks, and how a base image is named.

A base image is asked for as `name` or `name@version`. Its suite follows from the version where the distribution decides
it (`python@3.13` is trixie's), else it is the host's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import jinja2

from paasd.build.templates import environment
from paasd.errors import InvalidInput, NotFound
from paasd.models import shown

BASE = "base"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_PACKAGES_ONLY = """\
{% import "macros.j2" as m with context %}
FROM {{ bases.values() | first }}
{{ m.apt(packages) }}
"""


@dataclass(frozen=True)
class Recipe:
    """How one base image is made. `{version}` stands for the version asked for."""

    name: str
    packages: tuple[str, ...] = ()
    """Of the distribution."""
    needs: tuple[str, ...] = (BASE,)
    """Base images that come first; the first one is what `packages` are installed on."""
    template: str = ""
    """A Dockerfile; without one, `packages` are installed and that is all."""
    versioned: bool = False
    suites: Mapping[str, str] = field(default_factory=dict)
    """Suite by version, for versions that the distribution decides."""
    any_version: bool = False
    """Whether versions come from elsewhere, so that others than those in `suites` can be made too."""


@dataclass(frozen=True)
class Reference:
    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


def reference(text: str) -> Reference:
    """`python@3.13`, or `python:3.13` as Docker writes it. Raises InvalidInput."""
    name, mark, version = text.partition("@") if "@" in text else text.partition(":")
    if mark and not _VERSION.fullmatch(version):
        raise InvalidInput(f"invalid base image {shown(text)}", hint="Write a name and a version, such as python@3.13.")
    return Reference(name, version)


class Recipes:
    """All that the buildpacks of this box bring. `shared` holds the templates they may import."""

    def __init__(self, recipes: Mapping[str, Recipe], shared: Mapping[str, str]) -> None:
        self._recipes = {BASE: Recipe(BASE, needs=()), **recipes}
        self._shared = dict(shared)

    def names(self) -> list[str]:
        return list(self._recipes)

    def get(self, ref: Reference) -> Recipe:
        """Raises NotFound for a base image nobody knows, or one that is asked for without its version or with one it
        has not."""
        recipe = self._recipes.get(ref.name)
        if recipe is None:
            raise NotFound(f"no base image is called {shown(ref.name)}", hint=f"There are: {', '.join(self.names())}")
        if recipe.versioned and not ref.version:
            raise NotFound(f"the base image {ref.name} needs a version", hint=_known(recipe))
        if recipe.name != BASE and not recipe.versioned and ref.version:
            return recipe  # `paasd/static:bookworm` in a Dockerfile; the suite is the box's
        if recipe.versioned and ref.version not in recipe.suites and not recipe.any_version:
            raise NotFound(f"the base image {ref} cannot be made here", hint=_known(recipe))
        return recipe

    def suite(self, ref: Reference, default: str) -> str:
        if ref.name == BASE:
            return ref.version or default
        return self.get(ref).suites.get(ref.version, default)

    def needs(self, ref: Reference, default_suite: str) -> dict[str, Reference]:
        """The base images that come before `ref`, by name."""
        recipe, found = self.get(ref), {}
        for name in recipe.needs:
            version = self.suite(ref, default_suite) if name == BASE else ""
            if name != BASE and self._recipes[name].versioned:
                version = ref.version
            found[name] = Reference(name, version)
        return found

    def dockerfile(self, ref: Reference, bases: Mapping[str, str], suite: str) -> str:
        """The Dockerfile of `ref`. `bases`: name → full image name of what it needs."""
        recipe = self.get(ref)
        packages = [package.format(version=ref.version) for package in recipe.packages]
        templates = environment({**self._shared, "": recipe.template or _PACKAGES_ONLY})
        values = {"bases": dict(bases), "packages": packages, "version": ref.version, "suite": suite, "app_id": "base"}
        try:
            return templates.get_template("").render(values)
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the recipe of the base image {ref} is wrong: {error}") from error


def _known(recipe: Recipe) -> str:
    return f"There are: {', '.join(f'{recipe.name}@{version}' for version in recipe.suites)}"
