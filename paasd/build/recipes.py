"""What base images are made of: recipes of the buildpacks, and how a base image is named.

A base image is asked for as `name` or `name@version`. Its suite follows from the version where the distribution decides
it (`python@3.13` is trixie's), else it is the host's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2

from paasd.build.bootstrap import CA_BUNDLE
from paasd.build.templates import environment
from paasd.errors import InvalidInput, NotFound
from paasd.names import shown

BASE = "base"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_PACKAGES_ONLY = """\
{% import "macros.j2" as m with context %}
FROM {{ bases.values() | first }}
{{ m.apt(packages) }}
"""
_OFFICIAL = """\
{% import "macros.j2" as m with context %}
FROM {{ image }}
USER root
{% if ca_bundle %}
COPY ca.crt {{ ca_bundle }}
COPY ca.crt /usr/local/share/ca-certificates/paasd-host.crt
ENV SSL_CERT_FILE={{ ca_bundle }} REQUESTS_CA_BUNDLE={{ ca_bundle }} NODE_EXTRA_CA_CERTS={{ ca_bundle }}
{% endif %}
RUN groupadd --gid 10001 app && \\
    useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /bin/sh app && \\
    install -d -o app -g app /app && \\
    rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
{% if packages %}
{{ m.apt(packages) }}
{% endif %}
ENV LANG=C.UTF-8
ENTRYPOINT []
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
    official: str = ""
    """Image of a registry for versions that are not in `suites`, as `python:{version}-slim-{suite}`."""
    official_packages: tuple[str, ...] = ()
    """Of the distribution, in place of `packages`, for those versions; also without an image of its own."""


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
    """All that the buildpacks of this box bring. `shared` holds the templates they may import; `registry`, when it is
    set, has official images."""

    def __init__(self, recipes: Mapping[str, Recipe], shared: Mapping[str, str], registry: str = "") -> None:
        self._recipes = {BASE: Recipe(BASE, needs=()), **recipes}
        self._shared = dict(shared)
        self._registry = registry.rstrip("/")

    def with_registry(self, registry: str) -> Recipes:
        return Recipes(self._recipes, self._shared, registry)

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
        made_here = ref.version in recipe.suites or recipe.any_version
        if recipe.versioned and not made_here and not self._is_official(recipe):
            raise NotFound(f"the base image {ref} cannot be made here", hint=_known(recipe))
        return recipe

    def suite(self, ref: Reference, default: str) -> str:
        if ref.name == BASE:
            return ref.version or default
        return self.get(ref).suites.get(ref.version, default)

    def needs(self, ref: Reference, default_suite: str) -> dict[str, Reference]:
        """The base images that come before `ref`, by name."""
        recipe, found = self.get(ref), {}
        if self.official_image(ref, default_suite):
            return {}
        for name in recipe.needs:
            version = self.suite(ref, default_suite) if name == BASE else ""
            if name != BASE and self._recipes[name].versioned:
                version = ref.version
            found[name] = Reference(name, version)
        return found

    def official_image(self, ref: Reference, suite: str) -> str:
        """The image of the registry that `ref` is made of; empty when it is made of the distribution."""
        recipe = self.get(ref)
        if not recipe.official or not self._from_registry(recipe, ref):
            return ""
        return f"{self._registry}/{recipe.official.format(version=ref.version, suite=suite)}"

    def dockerfile(self, ref: Reference, bases: Mapping[str, str], suite: str, ca_bundle: bool = False) -> str:
        """The Dockerfile of `ref`. `bases`: name → full image name of what it needs; `ca_bundle` says whether the
        context of an official image's build has one."""
        recipe, image = self.get(ref), self.official_image(ref, suite)
        packages = recipe.official_packages if self._from_registry(recipe, ref) else recipe.packages
        templates = environment({**self._shared, "": _OFFICIAL if image else recipe.template or _PACKAGES_ONLY})
        values: dict[str, Any] = {
            "bases": dict(bases),
            "packages": [package.format(version=ref.version) for package in packages],
            "version": ref.version,
            "suite": suite,
            "app_id": "base",
            "image": image,
            "ca_bundle": CA_BUNDLE if ca_bundle else "",
        }
        try:
            return templates.get_template("").render(values)
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the recipe of the base image {ref} is wrong: {error}") from error

    def _from_registry(self, recipe: Recipe, ref: Reference) -> bool:
        """Whether `ref` is an official image, or made of one."""
        made_here = ref.version in recipe.suites or recipe.any_version
        return recipe.versioned and not made_here and self._is_official(recipe)

    def _is_official(self, recipe: Recipe) -> bool:
        """Whether the registry has an image of it, or of the first one it needs."""
        while not recipe.official and recipe.needs:
            recipe = self._recipes[recipe.needs[0]]
        return bool(self._registry and recipe.official)


def _known(recipe: Recipe) -> str:
    return f"There are: {', '.join(f'{recipe.name}@{version}' for version in recipe.suites)}"
