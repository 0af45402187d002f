"""The contract of a driver: what runs instances. `tests/conformance/test_driver.py` is its executable form and runs
on the in-memory fake and on every real driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paasd.models import Instance, InstanceSpec, InstanceState, LogLine


class OneOff(Protocol):
    """A running command that somebody is attached to. Close it (it is an async context manager) to end it; a one-off
    command's container is removed then."""

    async def read(self) -> tuple[int, bytes] | None:
        """Next output as `(stream, data)`, stream 1 or 2; None at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close_input(self) -> None: ...

    async def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        """Exit status of the command."""

    async def __aenter__(self) -> OneOff: ...

    async def __aexit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class DriverEvent:
    """Something happened to an instance behind or because of paasd: `start`, `die`, `oom`, `destroy`."""

    action: str
    instance: str
    app_id: str


@dataclass(frozen=True)
class Seen:
    """What a survey tells of an instance."""

    state: InstanceState
    address: str | None


@dataclass(frozen=True)
class Usage:
    """What an instance has used and may use. None: no limit."""

    cpu_seconds: float
    """Since its start."""
    cpus: float | None
    memory: int
    """Bytes, without what the system would give up at once."""
    memory_limit: int | None


class Driver(Protocol):
    """All methods raise EngineUnavailable when the platform does not answer in time, EngineError when it refuses.

    A driver sees only instances of its own paasd instance (by label); two paasd may share one engine.
    """

    async def ensure_network(self, name: str, subnets: Sequence[str], taken: Sequence[str] = ()) -> str:
        """Create the private network `name` unless it exists, on the first of `subnets` (CIDR) that is free on the
        platform and not in `taken`. Returns its subnet. Twice: the same subnet, nothing changed."""

    async def remove_network(self, name: str) -> None:
        """Remove the network. Missing: nothing happens. Still in use: raises EngineConflict."""

    async def networks(self) -> Sequence[str]:
        """Names of the networks that `ensure_network` made for this paasd."""

    async def start(self, spec: InstanceSpec) -> None:
        """Create and start one instance with the hardened defaults and a restart policy that outlives the daemon and
        the engine. A spec whose name exists and runs: nothing happens; exists stopped: started again.
        Raises EngineNotFound when the image is gone. On any failure nothing of the instance is left behind."""

    async def stop(self, name: str, timeout: int = 30) -> None:
        """SIGTERM, SIGKILL after `timeout` seconds, remove. Missing: nothing happens."""

    async def halt(self, name: str, timeout: int = 30) -> bool:
        """The same without the removal: its logs and exit status can still be read. False when it is missing."""

    async def resume(self, name: str) -> bool:
        """Start a halted instance again just as it was made, at its address. Running: nothing happens. False when it,
        or the network it was in, is missing. A failure leaves it halted."""

    async def list(self, app_id: str | None = None) -> Sequence[Instance]:
        """Every instance of this paasd (or of one app), stopped and crashing ones included, one-offs excluded."""

    async def survey(self) -> Mapping[str, Seen]:
        """The same instances by name with less told of each, in one call: cheap enough to ask often."""

    async def inspect(self, name: str) -> Instance | None:
        """One instance as it is now; None when it does not exist."""

    async def one_off(self, spec: InstanceSpec, *, tty: tuple[int, int] | None = None, stdin: bool = False) -> OneOff:
        """Run a command once in a container of its own, attached, without restart policy. `tty` = (columns, rows)."""

    async def launch(self, spec: InstanceSpec) -> None:
        """Run a command once in a container of its own, without restart policy and with nobody attached. It outlives
        the daemon; when it has ended, its container stays until `stop` removes it. The name exists: EngineConflict.
        On any failure nothing is left behind."""

    async def wait(self, name: str) -> Instance | None:
        """What `launch` started, once it does not run: also one that never began. None when it is missing."""

    async def one_offs(self, *, detached: bool = False) -> Mapping[str, str]:
        """Every container of a one-off command (or only those of `launch`), with the id of its app; `stop` removes one
        of them too."""

    async def remove_one_offs(self) -> None:
        """Remove the containers of one-off commands that were not begun by this driver, or not removed when they were
        closed: what a killed daemon or an engine that refused left. Those of `launch` stay."""

    async def exec(
        self, name: str, command: Sequence[str], *, tty: tuple[int, int] | None = None, stdin: bool = False
    ) -> OneOff:
        """Run a command inside a running instance, attached, as its user and with its environment. Closing it hangs up
        on what the command left running. Missing: raises EngineNotFound; not running: EngineConflict."""

    async def describe(self, name: str) -> Mapping[str, Any] | None:
        """All that the platform tells of an instance, in its own words, the values of environment variables masked.
        None when it is missing."""

    async def exec_once(self, name: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run a command inside a running instance, without input: its exit status (126 or 127 when it cannot be run)
        and the start of its output. Raises TimeoutError after `timeout` seconds and ends the command, EngineNotFound
        when there is no such instance, EngineError when it does not run."""

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """What these instances use; those that do not run are left out. Cheap enough to ask often."""

    def logs(self, name: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines an instance wrote, oldest first. A vanished instance ends the iteration. Undecodable bytes are
        shown as backslash escapes; lines are cut at 16 KiB."""

    def events(self) -> AsyncIterator[DriverEvent]:
        """Events from now on, until the platform goes away (raises EngineUnavailable)."""

    async def listening_ports(self, name: str) -> Sequence[int]:
        """TCP ports the instance listens on, for error texts; empty when that cannot be found out."""
