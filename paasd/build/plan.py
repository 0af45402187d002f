"""What a buildpack's `plan(source, settings) -> Plan | None` takes and gives: pure data, made without the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from paasd.models import ProcessType


class Source(Protocol):
    """A read-only view of one revision."""

    @property
    def files(self) -> frozenset[str]:
        """Paths relative to the root."""

    def read(self, path: str) -> str | None:
        """Text of a file; None when there is none. May block for a moment."""


@dataclass(frozen=True)
class Settings:
    """What is known beside the source when a build is planned."""

    versions: tuple[str, ...] = ()
    """Of the buildpack's language, as far as base images can be made on this host; the default comes first."""
    official: tuple[str, ...] | None = None
    """Versions that official images of a registry have beside `versions`, and others may; None when none is set."""
    version: str = ""
    """The one somebody asked for by a setting; beats every file."""
    install_command: str = ""
    build_command: str = ""
    start_command: str = ""
    output_dir: str = ""
    """Folder of the built site, for apps that are served as static files."""
    packages: tuple[str, ...] = ()
    """Packages of the distribution to install for building and running."""
    dockerfile: str = ""
    """Path of the Dockerfile, when it is not `Dockerfile`."""
    target: str = ""
    """Stage of the Dockerfile to build."""
    tests: bool = False
    """Whether tests run beside what was built, so that the stage they run in needs what they need."""
    process_types: tuple[str, ...] | None = None
    """Names in the Procfile; None without one. A plan need not find a start command when `web` is among them."""
    builder_is_set: bool = False
    """Whether a setting or file chose this buildpack, so that it must take the repository or say why not."""


@dataclass(frozen=True)
class Plan:
    """How a buildpack builds one checkout."""

    buildpack: str
    process_types: tuple[ProcessType, ...]
    """Used when the repository has no Procfile."""
    reasons: tuple[str, ...] = ()
    """Lines for the build log: what was detected and which file decided it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Chosen versions by what they are of, for the record: {"python": "3.13", "poetry": "2.1"}."""
    dockerfile: str = ""
    """Its path inside the repository when `in_repository`; empty when the buildpack's template makes it."""
    in_repository: bool = False
    target: str = ""
    """Stage to build, for a Dockerfile of the repository."""
    user: str | None = None
    """`uid:gid` to run as; None keeps the image's own user."""
    bases: tuple[str, ...] = ()
    """Base images that must exist before the build starts, as `name` or `name@version`."""
    packages: tuple[str, ...] = ()
    """Packages of the distribution the template installs with the macro `apt`."""
    test_stage: str = "build"
    """Stage of the template that holds what tests need."""
    files: tuple[str, ...] = ()
    """Names of shared templates to put into the build context beside the buildpack's own."""
    left_out: tuple[str, ...] = ()
    """Names of files and folders of the repository, at any depth, that do not go into the build context."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the templates of the buildpack need."""


PlanFunction = Callable[[Source, Settings], Plan | None]
