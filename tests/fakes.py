"""An in-memory driver that keeps the contract of `drivers/base.py`: see tests/conformance/test_driver.py.

Its instances "run" a tiny script language that busybox understands too: `echo`, `cat`, `exit`, `sleep`,
`httpd -f -p PORT` and `trap '' TERM`, joined by `; ` in `sh -c`, or alone.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Any

from paasd.drivers.base import DriverEvent, Seen, Usage
from paasd.errors import EngineConflict, EngineNotFound, EngineUnavailable
from paasd.models import Instance, InstanceSpec, InstanceState, LogLine


@dataclass
class _Program:
    output: list[tuple[int, bytes]] = field(default_factory=list)
    reads_input: bool = False
    runs: bool = False
    exit_code: int = 0
    ports: list[int] = field(default_factory=list)


@dataclass
class _Container:
    spec: InstanceSpec
    instance: Instance
    program: _Program
    logs: list[LogLine] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False


class FakeDriver:
    """Tests reach behind its back with `end`, `crash`, `vanish`, `log`, and `unavailable = True`."""

    def __init__(self, images: Sequence[str] = ()) -> None:
        self.images = set(images)
        self.networks_by_name: dict[str, str] = {}
        self.containers: dict[str, _Container] = {}
        self.one_offs_by_name: dict[str, InstanceSpec] = {}
        self.attached: set[str] = set()
        self.launched: dict[str, _Container] = {}
        self.unavailable = False
        self._listeners: list[asyncio.Queue[DriverEvent | None]] = []
        self._pids = itertools.count(1000)

    def successor(self) -> FakeDriver:
        """The driver of the next daemon on the same platform."""
        made = copy.copy(self)
        made.attached = set()
        return made

    async def ensure_network(self, name: str, subnets: Sequence[str], taken: Sequence[str] = ()) -> str:
        self._check_available()
        if name in self.networks_by_name:
            return self.networks_by_name[name]
        occupied = [IPv4Network(subnet) for subnet in (*taken, *self.networks_by_name.values())]
        for subnet in subnets:
            if not any(IPv4Network(subnet).overlaps(other) for other in occupied):
                self.networks_by_name[name] = subnet
                return subnet
        raise EngineConflict(f"no free subnet for network {name}")

    async def networks(self) -> Sequence[str]:
        return list(self.networks_by_name)

    async def remove_network(self, name: str) -> None:
        self._check_available()
        if any(container.spec.network == name for container in self.containers.values()):
            raise EngineConflict(f"network {name} is still in use by instances")
        self.networks_by_name.pop(name, None)

    async def start(self, spec: InstanceSpec) -> None:
        self._check_available()
        existing = self.containers.get(spec.name)
        if existing is not None and existing.instance.state is InstanceState.RUNNING:
            return
        self._check_startable(spec)
        self.containers[spec.name] = existing or self._container(spec)
        self._run(self.containers[spec.name])

    async def stop(self, name: str, timeout: int = 30) -> None:
        await self.halt(name, timeout)
        self.one_offs_by_name.pop(name, None)
        if name in self.containers:
            self.vanish(name)
        elif container := self.launched.pop(name, None):
            container.gone = True
            container.changed.set()

    async def halt(self, name: str, timeout: int = 30) -> bool:
        self._check_available()
        if name in self.containers:
            self.end(name)
        elif container := self.launched.get(name):
            if container.instance.state is InstanceState.RUNNING:
                self._end_launched(container, 143)
        return name in self.containers or name in self.launched

    async def resume(self, name: str) -> bool:
        self._check_available()
        container = self.containers.get(name)
        if container is None or container.spec.network not in self.networks_by_name:
            return False
        if container.instance.state is not InstanceState.RUNNING:
            container.instance = replace(container.instance, restarts=0)
            self._run(container)
        return True

    async def list(self, app_id: str | None = None) -> Sequence[Instance]:
        self._check_available()
        instances = [container.instance for container in self.containers.values()]
        return [instance for instance in instances if app_id in (None, instance.app_id)]

    async def survey(self) -> Mapping[str, Seen]:
        return {instance.name: Seen(instance.state, instance.address) for instance in await self.list()}

    async def inspect(self, name: str) -> Instance | None:
        self._check_available()
        container = self.containers.get(name) or self.launched.get(name)
        return container.instance if container else None

    async def one_off(
        self, spec: InstanceSpec, *, tty: tuple[int, int] | None = None, stdin: bool = False
    ) -> FakeOneOff:
        self._check_available()
        self._check_startable(spec)
        self.one_offs_by_name[spec.name] = spec
        self.attached.add(spec.name)
        return FakeOneOff(self, spec, _parse(spec.command), stdin)

    async def launch(self, spec: InstanceSpec) -> None:
        self._check_available()
        self._check_startable(spec)
        if spec.name in self.launched:
            raise EngineConflict(f"a container {spec.name} exists already")
        container = self.launched[spec.name] = self._container(spec)
        container.instance = replace(container.instance, state=InstanceState.RUNNING, started_at=time.time())
        for stream, text in container.program.output:
            self.log(spec.name, text.decode().rstrip("\n"), stderr=stream == 2)
        if not container.program.runs:
            self._end_launched(container, container.program.exit_code)

    async def wait(self, name: str) -> Instance | None:
        while (container := self.launched.get(name)) and container.instance.state is InstanceState.RUNNING:
            container.changed.clear()
            await container.changed.wait()
        return await self.inspect(name)

    async def one_offs(self, *, detached: bool = False) -> Mapping[str, str]:
        self._check_available()
        attached = {} if detached else self.one_offs_by_name
        specs = [*attached.values(), *(container.spec for container in self.launched.values())]
        return {spec.name: spec.app_id for spec in specs}

    async def remove_one_offs(self) -> None:
        self._check_available()
        for name in set(self.one_offs_by_name) - self.attached:
            del self.one_offs_by_name[name]

    async def exec(
        self, name: str, command: Sequence[str], *, tty: tuple[int, int] | None = None, stdin: bool = False
    ) -> FakeOneOff:
        self._check_available()
        container = self.containers.get(name)
        if container is None:
            raise EngineNotFound(f"there is no instance {name}")
        if container.instance.state is not InstanceState.RUNNING:
            raise EngineConflict(f"container {name} is not running")
        return FakeOneOff(self, replace(container.spec, name=""), _parse(tuple(command)), stdin)

    async def describe(self, name: str) -> Mapping[str, Any] | None:
        instance = await self.inspect(name)
        if instance is None:
            return None
        container = self.containers.get(name) or self.launched[name]
        return {"Name": f"/{name}", "Config": {"Env": [f"{variable}=****" for variable in container.spec.env]}}

    async def exec_once(self, name: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        self._check_available()
        container = self.containers.get(name)
        if container is None:
            raise EngineNotFound(f"no such container: {name}")
        if container.instance.state is not InstanceState.RUNNING:
            raise EngineConflict(f"{name} is not running")
        program = _parse(tuple(command))
        if program.runs:
            raise TimeoutError
        return program.exit_code, b"".join(text for _, text in program.output).decode()

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        self._check_available()
        running = [c for name in names if (c := self.containers.get(name)) and c.instance.pid is not None]
        return {c.spec.name: Usage(0.01, c.spec.limits.cpus, 2**20, c.spec.limits.memory) for c in running}

    async def logs(self, name: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[LogLine]:
        self._check_available()
        container = self.containers.get(name) or self.launched.get(name)
        if container is None:
            return
        position = max(0, len(container.logs) - tail)
        while True:
            container.changed.clear()
            for line in container.logs[position:]:
                yield line
            position = len(container.logs)
            if not follow or container.gone:
                return
            await container.changed.wait()

    async def events(self) -> AsyncIterator[DriverEvent]:
        self._check_available()
        queue: asyncio.Queue[DriverEvent | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.remove(queue)
        raise EngineUnavailable("the container engine ended its stream of events")

    async def listening_ports(self, name: str) -> Sequence[int]:
        container = self.containers.get(name)
        return container.program.ports if container else []

    def end(self, name: str) -> None:
        """The instance ends and stays, as with `docker stop`."""
        self._end(name, InstanceState.EXITED, 143)

    def crash(self, name: str, exit_code: int = 1) -> None:
        self._end(name, InstanceState.CRASHING, exit_code)

    def vanish(self, name: str) -> None:
        """The instance is removed, as with `docker rm -f`."""
        container = self.containers.pop(name)
        container.gone = True
        container.changed.set()
        self._tell("destroy", container)

    def log(self, name: str, text: str, *, stderr: bool = False) -> None:
        container = self.containers.get(name) or self.launched[name]
        title = f"{container.spec.process_type}.{container.spec.index}"
        container.logs.append(LogLine(time.time(), title, text, stderr))
        container.changed.set()

    def go_away(self) -> None:
        """The platform stops: event streams end, every call raises EngineUnavailable."""
        self.unavailable = True
        for queue in self._listeners:
            queue.put_nowait(None)

    def _check_available(self) -> None:
        if self.unavailable:
            raise EngineUnavailable("the container engine does not answer")

    def _check_startable(self, spec: InstanceSpec) -> None:
        if spec.image not in self.images:
            raise EngineNotFound(f"no such image: {spec.image}")
        if spec.network not in self.networks_by_name:
            raise EngineNotFound(f"no such network: {spec.network}")
        for other in self.containers.values():
            if spec.address and other.spec.address == spec.address and other.spec.name != spec.name:
                raise EngineConflict(f"the address of {spec.name} is in use by another container")

    def _container(self, spec: InstanceSpec) -> _Container:
        instance = Instance(
            spec.name,
            spec.app_id,
            spec.release,
            spec.process_type,
            spec.index,
            InstanceState.STARTING,
            spec.address,
            spec.image,
        )
        return _Container(spec, instance, _parse(spec.command))

    def _run(self, container: _Container) -> None:
        name = container.spec.name
        container.instance = replace(
            container.instance,
            state=InstanceState.RUNNING,
            pid=next(self._pids),
            exit_code=None,
            started_at=time.time(),
        )
        self._tell("start", container)
        for stream, text in container.program.output:
            self.log(name, text.decode().rstrip("\n"), stderr=stream == 2)
        if not container.program.runs:
            self.crash(name, container.program.exit_code)

    def _end(self, name: str, state: InstanceState, exit_code: int) -> None:
        container = self.containers[name]
        if container.instance.state is InstanceState.EXITED:
            return
        restarts = container.instance.restarts + (state is InstanceState.CRASHING)
        container.instance = replace(container.instance, state=state, pid=None, exit_code=exit_code, restarts=restarts)
        self._tell("die", container)

    def _end_launched(self, container: _Container, exit_code: int) -> None:
        container.instance = replace(
            container.instance, state=InstanceState.EXITED, pid=None, exit_code=exit_code, ended_at=time.time()
        )
        container.changed.set()

    def _tell(self, action: str, container: _Container) -> None:
        for queue in self._listeners:
            queue.put_nowait(DriverEvent(action, container.spec.name, container.spec.app_id))


class FakeOneOff:
    def __init__(self, driver: FakeDriver, spec: InstanceSpec, program: _Program, stdin: bool) -> None:
        self._driver = driver
        self._spec = spec
        self._exit_code = program.exit_code
        self._ended = asyncio.Event()
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.size: tuple[int, int] | None = None
        for piece in program.output:
            self._output.put_nowait(piece)
        if not (program.runs or (program.reads_input and stdin)):
            self._end()

    async def read(self) -> tuple[int, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        self._output.put_nowait((1, data))

    async def close_input(self) -> None:
        self._end()

    async def resize(self, columns: int, rows: int) -> None:
        self.size = columns, rows

    async def wait(self) -> int:
        await self._ended.wait()
        return self._exit_code

    async def __aenter__(self) -> FakeOneOff:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._driver.one_offs_by_name.pop(self._spec.name, None)
        self._driver.attached.discard(self._spec.name)

    def _end(self) -> None:
        self._output.put_nowait(None)
        self._ended.set()


def _parse(command: tuple[str, ...] | None) -> _Program:
    program = _Program()
    words = list(command or ("sleep", "3600"))
    script = words[2] if words[0].endswith("sh") and words[1:2] == ["-c"] else " ".join(words)
    for statement in script.split("; "):
        _interpret(statement.removeprefix("exec "), program)
    return program


def _interpret(statement: str, program: _Program) -> None:
    name, _, rest = statement.partition(" ")
    match name.rpartition("/")[2]:
        case "echo":
            text, _, redirected = rest.partition(" >&2") if rest.endswith(" >&2") else (rest, "", None)
            program.output.append((1 if redirected is None else 2, f"{text}\n".encode()))
        case "exit":
            program.exit_code = int(rest)
        case "cat":
            program.reads_input = True
        case "sleep":
            program.runs = True
        case "httpd":
            program.runs = True
            program.ports += [int(port) for port in re.findall(r"-p (\d+)", rest)]
        case "trap":
            pass
        case _:
            program.exit_code = 127
