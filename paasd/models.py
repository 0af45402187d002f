"""The values handed from stage to stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

MAX_CONFIG_VALUE = 64 * 1024


class Secret:
    """A value that masks itself wherever it is printed; `reveal()` is the only way to the text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(****)"

    def __str__(self) -> str:
        return "****"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True)
class Actor:
    """Who asks: a user of an organization, or the box's own administrator (`user_id` None)."""

    organization_id: str
    user_id: str | None
    name: str
    role: str = "viewer"
    """owner, admin, developer or viewer; what each may do is said in identity/policy.py."""


@dataclass(frozen=True)
class Project:
    id: str
    organization_id: str
    name: str
    subnet: str | None
    """CIDR of the project's own network, once it has one."""


@dataclass(frozen=True)
class App:
    id: str
    organization_id: str
    project_id: str
    project: str
    name: str
    environment: str
    deploy_branch: str | None
    release_id: str | None
    """The release that is live; None before the first deployment."""
    release_number: int | None
    stopped: bool
    scale: Mapping[str, int]
    created_at: float
    lock_reason: str | None = None
    """Why nothing may be deployed; None when it may."""
    asleep: bool = False
    """Instances of it are kept stopped until somebody asks for it."""
    postdeploy_at: float | None = None
    """When app.json's script for the first deployment had run, or was not needed."""


@dataclass(frozen=True)
class Push:
    """One accepted `git push`."""

    id: str
    app_id: str
    revision: str
    branch: str
    user: str


@dataclass(frozen=True)
class RefUpdate:
    """One line that Git's pre-receive hook reads: object ids before and after, and the full name of the ref."""

    old: str
    new: str
    ref: str


@dataclass(frozen=True)
class ProcessType:
    name: str
    command: str | None
    """Shell text run by the image's /bin/sh; None means the image's own entry point."""


@dataclass(frozen=True)
class Setting:
    """One thing decided about an app's build, and what decided it."""

    value: str
    origin: str
    """`builds:set`, or the file and its key, as `railway.toml deploy.startCommand`."""


@dataclass(frozen=True)
class ConfigVarNeed:
    """What app.json says about one config var of the app."""

    required: bool = False
    """A push is refused while nobody has set it."""
    value: str = ""
    """Given to an app that has none."""
    generated: bool = False
    """An app that has none gets a random one."""
    description: str = ""


@dataclass(frozen=True)
class Manifest:
    """What the files in a repository say about the app."""

    process_types: tuple[ProcessType, ...] | None = None
    """Of the Procfile; None without one."""
    healthchecks: Mapping[str, Any] = field(default_factory=dict)
    """Of app.json or railway.toml, by process type."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Build settings by key."""
    config_vars: Mapping[str, ConfigVarNeed] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)
    """`formation`, `cron` and `scripts` of app.json, checked."""
    unused: tuple[str, ...] = ()
    """What the files say and paasd does not do, for people."""


class Checkout(Protocol):
    """One revision of an app's repository, as the source stage hands it on."""

    @property
    def revision(self) -> str: ...

    @property
    def tree(self) -> str:
        """Id of the files as they are, whoever committed them when."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def files(self) -> frozenset[str]:
        """Paths relative to the root, undecodable bytes as surrogates."""

    def read(self, path: str) -> str | None:
        """Text of a file, None when there is none. May block for a moment: call it in a thread."""

    def under(self, folder: str) -> Checkout:
        """The same revision as if `folder` were its root. May block for a moment."""

    async def changed_since(self, revision: str) -> frozenset[str] | None:
        """Paths that differ from an older revision; None when that is not known any more."""

    def tar(self, prefix: str = "") -> AsyncIterator[bytes]:
        """The revision as an uncompressed tar, paths under `prefix`."""


class Status(StrEnum):
    """States of builds and deployments. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


class Phase(StrEnum):
    """Phases of a deployment, in order; those it has no need of are left out."""

    REQUESTED = "requested"
    BUILDING = "building"
    RELEASING = "releasing"
    STARTING = "starting"
    CHECKING = "checking"
    CANARY = "canary"
    SWITCHING = "switching"
    DRAINING = "draining"
    """The new release is live; old instances finish what they are at."""
    LIVE = "live"


@dataclass(frozen=True)
class Build:
    id: str
    app_id: str
    number: int
    revision: str
    image: str
    process_types: tuple[ProcessType, ...]
    user: str | None
    checks: Mapping[str, Any] = field(default_factory=dict)
    config_vars: Mapping[str, ConfigVarNeed] = field(default_factory=dict)
    """What app.json wants the app to have."""
    app_json: Mapping[str, Any] = field(default_factory=dict)
    """`formation`, `cron` and `scripts` of app.json."""
    port: int | None = None
    """$PORT of web instances, when it is not the box's usual one."""


@dataclass(frozen=True)
class Release:
    """Immutable `vN` of an app: image + config vars + process types."""

    id: str
    app_id: str
    number: int
    build_id: str | None
    image: str
    user: str | None
    config: Mapping[str, Secret]
    process_types: tuple[ProcessType, ...]
    checks: Mapping[str, Any]
    """`healthchecks` of app.json; what `checks:set` says is laid over it when instances are checked."""
    description: str
    created_by: str
    created_at: float
    app_json: Mapping[str, Any] = field(default_factory=dict)
    """`formation`, `cron` and `scripts` of app.json."""
    port: int | None = None
    """$PORT of web instances, when it is not the box's usual one."""

    @property
    def version(self) -> str:
        return f"v{self.number}"


@dataclass(frozen=True)
class Limits:
    """Per instance. Memory in bytes (swap is not added), CPUs in cores."""

    memory: int = 512 * 1024 * 1024
    cpus: float = 1.0
    pids: int = 256
    memory_reservation: int = 0
    """Bytes an instance keeps when the box runs short of memory; 0: none."""


@dataclass(frozen=True)
class Mount:
    """What an instance sees at `path`: a volume of the engine, or a directory of the host."""

    path: str
    volume: str | None = None
    host_path: str | None = None
    read_only: bool = False


@dataclass(frozen=True)
class InstanceSpec:
    """Everything a driver needs to run one instance. `name` is unique on the engine and never reused."""

    name: str
    app_id: str
    app: str
    release: int
    process_type: str
    index: int
    image: str
    command: tuple[str, ...] | None
    """Argument list; None runs what the image says."""
    env: Mapping[str, Secret]
    network: str
    address: str | None
    """Fixed IPv4 address in `network`; None lets the engine choose (one-off commands)."""
    limits: Limits = Limits()
    user: str | None = None
    stop_timeout: int = 30
    """Seconds between SIGTERM and SIGKILL."""
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


class InstanceState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    CRASHING = "crashing"
    """The engine restarts it again and again, with growing pauses."""
    EXITED = "exited"


@dataclass(frozen=True)
class Instance:
    """What the driver sees on the platform, whoever put it there."""

    name: str
    app_id: str
    release: int
    process_type: str
    index: int
    state: InstanceState
    address: str | None
    image: str
    restarts: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    pid: int | None = None
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True)
class LogLine:
    at: float
    """Seconds since the epoch."""
    instance: str
    """`web.1`"""
    text: str
    stderr: bool = False


@dataclass(frozen=True)
class Event:
    """A recorded fact. Ids grow in the order of the changes they tell of."""

    id: int
    at: float
    type: str
    organization_id: str
    app: str | None
    actor: str
    data: Mapping[str, Any]
