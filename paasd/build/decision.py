"""Decides how a checkout is built: what its files say, what was set for the app, and which buildpack takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pathspec

from paasd.build import dockerfile_rules
from paasd.build.base_images import BaseImages
from paasd.build.buildpacks import Buildpacks
from paasd.build.plan import Plan, Settings
from paasd.build_settings import AUTOMATIC, COMMAND, BuildSettings, checked
from paasd.config import Config
from paasd.errors import SourceRejected
from paasd.models import App, Checkout, Manifest, ProcessType, Setting

DOCKERFILE = "dockerfile"


@dataclass(frozen=True)
class Decision:
    checkout: Checkout
    """Below `root-dir`."""
    manifest: Manifest
    settings: Mapping[str, Setting]
    plan: Plan
    process_types: tuple[ProcessType, ...]
    others: Sequence[str]
    """Buildpacks that would have fitted too."""

    @property
    def lines(self) -> list[str]:
        """What decided what, for people."""
        said = [f"{key}: {setting.value} ({setting.origin})" for key, setting in self.settings.items()]
        said += self.plan.reasons
        said += [f"not used: {what}" for what in self.manifest.unused]
        if self.others:
            said.append(
                f"{self.plan.buildpack} comes before {', '.join(self.others)}; choose with: builds:set … builder NAME"
            )
        return said

    def value(self, key: str) -> str:
        return self.settings[key].value if key in self.settings else ""


class Planner:
    def __init__(self, config: Config, buildpacks: Buildpacks, bases: BaseImages, settings: BuildSettings) -> None:
        self._config = config
        self._buildpacks = buildpacks
        self._bases = bases
        self._settings = settings

    async def decide(self, app: App, checkout: Checkout, *, language: str = "", version: str = "") -> Decision:
        """`language` (a buildpack's name) and its `version` beat all settings. Raises SourceRejected."""
        chosen = await self._settings.get(app)
        given = {"builder": language, "version": version}
        chosen |= {key: Setting(checked(key, value), "the command") for key, value in given.items() if value}
        suites = (await self._bases.host()).suites
        return await asyncio.to_thread(self._decide, checkout, chosen, suites)

    def _decide(self, checkout: Checkout, chosen: Mapping[str, Setting], suites: Sequence[str]) -> Decision:
        root = chosen.get("root-dir") or checkout.manifest.settings.get("root-dir")
        if root:
            checkout = checkout.under(root.value)
        manifest = checkout.manifest
        settings = {**({"root-dir": root} if root else {}), **manifest.settings, **chosen}
        values = {key: setting.value for key, setting in settings.items()}
        builder = values.get("builder") or (DOCKERFILE if {"dockerfile", "target"} & values.keys() else None)
        plan = self._buildpacks.plan(
            checkout,
            int(values.get("port", self._config.run.port)),
            wanted=None if builder == AUTOMATIC else builder,
            without=(DOCKERFILE,) if builder == AUTOMATIC else (),
            settings=_for_plan(values, manifest),
            suites=suites,
            official=bool(self._config.build.official_images),
        )
        if plan.in_repository:
            dockerfile_rules.check(checkout.read(plan.dockerfile) or "", self._config.label)
        others = [] if builder else self._buildpacks.also_fit(checkout, plan, suites)
        return Decision(checkout, manifest, settings, plan, _process_types(manifest, plan, settings), others)


def is_watched(changed: frozenset[str], patterns: str) -> bool:
    """Whether one of the changed paths matches one of the patterns (those of .gitignore)."""
    spec = pathspec.PathSpec.from_lines("gitignore", patterns.split())
    return any(spec.match_file(path) for path in changed)


def require_config_vars(manifest: Manifest, present: Mapping[str, object], app: App) -> None:
    """Raises SourceRejected naming what app.json requires and nobody has set."""
    missing = [name for name, need in manifest.config_vars.items() if need.required and name not in present]
    if missing:
        said = ", ".join(
            f"{name} ({manifest.config_vars[name].description})" if manifest.config_vars[name].description else name
            for name in missing
        )
        raise SourceRejected(
            f"app.json requires config vars that are not set: {said}",
            hint=f"Set them: config:set --no-restart {app.name} {' '.join(f'{name}=…' for name in missing)}",
        )


def _for_plan(values: Mapping[str, str], manifest: Manifest) -> Settings:
    types = manifest.process_types
    return Settings(
        version=values.get("version", ""),
        install_command=values.get("install-command", ""),
        build_command=values.get("build-command", ""),
        start_command=values.get("start-command", ""),
        output_dir=values.get("output-dir", ""),
        packages=tuple(values.get("packages", "").split()),
        dockerfile=values.get("dockerfile", ""),
        target=values.get("target", ""),
        tests="test-command" in values,
        process_types=None if types is None else tuple(p.name for p in types),
    )


def _process_types(manifest: Manifest, plan: Plan, settings: Mapping[str, Setting]) -> tuple[ProcessType, ...]:
    """The Procfile's, else the plan's. A command of a file beats only the plan, one that was set for the app all."""
    types = {p.name: p for p in manifest.process_types or plan.process_types}
    for name, key in (("web", "start-command"), ("release", "release-command")):
        setting = settings.get(key)
        in_procfile = manifest.process_types is not None and name in types
        if setting and (setting.origin == COMMAND or not in_procfile):
            types[name] = ProcessType(name, setting.value)
    return tuple(types.values())
