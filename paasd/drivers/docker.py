"""Runs instances as containers of one Docker engine. Owns containers and networks labelled `paasd.instance=<label>`."""

from __future__ import annotations

import asyncio
import builtins
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from paasd.docker_engine import DockerEngine
from paasd.drivers.base import DriverEvent, Seen, Usage
from paasd.drivers.docker_containers import (
    APP,
    DETACHED,
    INSTANCE,
    ONE_OFF,
    ROLE,
    address_of,
    container_options,
    instance_of,
    masked,
    state_of,
)
from paasd.drivers.docker_exec import DockerExec
from paasd.drivers.docker_exec_once import exec_once
from paasd.drivers.docker_logs import follow_logs
from paasd.drivers.docker_networks import DockerNetworks, network_options
from paasd.drivers.docker_one_off import DockerOneOff, ended
from paasd.drivers.docker_ports import host_ports, ports_in
from paasd.drivers.docker_usage import UsageReader
from paasd.errors import EngineConflict, EngineError, EngineNotFound, EngineUnavailable
from paasd.models import Instance, InstanceSpec, LogLine

_log = logging.getLogger(__name__)

_REMOVAL_TIMEOUT = 30.0
_INSPECTIONS = 8


class DockerDriver:
    """See `drivers/base.py` for what each method promises."""

    def __init__(self, engine: DockerEngine, label: str) -> None:
        self._engine = engine
        self._label = label
        self._usage = UsageReader(engine)
        self._inspections = asyncio.Semaphore(_INSPECTIONS)
        self._attached: set[str] = set()
        """One-off commands that somebody here uses."""
        self._networks = DockerNetworks(engine, label)

    async def ensure_network(self, name: str, subnets: Sequence[str], taken: Sequence[str] = ()) -> str:
        return await self._networks.ensure(name, subnets, taken)

    async def remove_network(self, name: str) -> None:
        await self._networks.remove(name)

    async def networks(self) -> Sequence[str]:
        return await self._networks.names()

    async def start(self, spec: InstanceSpec) -> None:
        options = container_options(spec, self._label)
        if not await self._create_whole(spec.name, options) and await self._runs(spec.name):
            return
        try:
            await self._start(spec.name)
        except BaseException:
            await asyncio.shield(self._discard(spec.name))
            raise

    async def stop(self, name: str, timeout: int = 30) -> None:
        if await self.halt(name, timeout):
            await self._remove(name)

    async def halt(self, name: str, timeout: int = 30) -> bool:
        if await self._own(name) is None:
            return False
        try:
            await self._engine.request("POST", f"/containers/{name}/stop", params={"t": timeout}, timeout=timeout + 20)
        except EngineNotFound:
            return False
        return True

    async def resume(self, name: str) -> bool:
        if await self._own(name) is None:
            return False
        try:
            await self._start(name)
        except EngineNotFound:
            return False
        return True

    async def list(self, app_id: str | None = None) -> Sequence[Instance]:
        instances = await asyncio.gather(*(self.inspect(container["Id"]) for container in await self._found(app_id)))
        return [instance for instance in instances if instance is not None]

    async def survey(self) -> Mapping[str, Seen]:
        return {
            container["Names"][0].removeprefix("/"): Seen(state_of(container["State"]), address_of(container))
            for container in await self._found()
            if container["Names"]
        }

    async def inspect(self, name: str) -> Instance | None:
        async with self._inspections:
            found = await self._own(name)
        return instance_of(found) if found is not None else None

    async def one_off(
        self, spec: InstanceSpec, *, tty: tuple[int, int] | None = None, stdin: bool = False
    ) -> DockerOneOff:
        self._attached.add(spec.name)
        try:
            options = container_options(spec, self._label, one_off=True, tty=tty is not None, stdin=stdin)
            if not await self._create_whole(spec.name, options):
                raise EngineConflict(f"a container {spec.name} exists already")
            return await self._attach(spec.name, tty, stdin)
        except BaseException:
            self._attached.discard(spec.name)
            raise

    async def _attach(self, name: str, tty: tuple[int, int] | None, stdin: bool) -> DockerOneOff:
        closed = partial(self._attached.discard, name)
        try:
            return await DockerOneOff.start(self._engine, name, closed, tty=tty, stdin=stdin)
        except BaseException as error:
            await asyncio.shield(self._discard(name))
            if isinstance(error, EngineError):
                raise _start_error(name, error) from error
            raise

    async def launch(self, spec: InstanceSpec) -> None:
        options = container_options(spec, self._label, one_off=True, detached=True)
        if not await self._create_whole(spec.name, options):
            raise EngineConflict(f"a container {spec.name} exists already")
        try:
            await self._start(spec.name)
        except BaseException:
            await asyncio.shield(self._discard(spec.name))
            raise

    async def wait(self, name: str) -> Instance | None:
        try:
            await ended(self._engine, name)
        except EngineNotFound:
            return None
        return await self.inspect(name)

    async def one_offs(self, *, detached: bool = False) -> Mapping[str, str]:
        return {
            container["Names"][0].removeprefix("/"): container["Labels"].get(APP, "")
            for container in await self._found(role=ONE_OFF)
            if container["Names"] and (not detached or DETACHED in container["Labels"])
        }

    async def remove_one_offs(self) -> None:
        attached = [c for c in await self._found(role=ONE_OFF) if DETACHED not in c["Labels"]]
        left = [c for c in attached if not {name.removeprefix("/") for name in c["Names"]} & self._attached]
        await asyncio.gather(*(self._remove(container["Id"]) for container in left))

    async def exec(
        self, name: str, command: Sequence[str], *, tty: tuple[int, int] | None = None, stdin: bool = False
    ) -> DockerExec:
        if await self._own(name) is None:
            raise EngineNotFound(f"there is no instance {name}")
        return await DockerExec.start(self._engine, name, command, tty=tty, stdin=stdin)

    async def describe(self, name: str) -> Mapping[str, Any] | None:
        found = await self._own(name)
        return masked(found) if found is not None else None

    async def exec_once(self, name: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        return await exec_once(self._engine, name, command, timeout)

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        return await self._usage.read(names)

    async def logs(self, name: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[LogLine]:
        instance = await self.inspect(name)
        if instance is None:
            return
        title = f"{instance.process_type}.{instance.index}"
        async for line in follow_logs(self._engine, name, title, tail=tail, follow=follow):
            yield line

    async def events(self) -> AsyncIterator[DriverEvent]:
        filters = {
            "type": ["container"],
            "event": ["start", "die", "oom", "destroy"],
            "label": [f"{INSTANCE}={self._label}", f"{ROLE}=instance"],
        }
        async with self._engine.stream("GET", "/events", params={"filters": filters}) as stream:
            async for event in stream.json_lines():
                facts = event["Actor"]["Attributes"]
                yield DriverEvent(event["Action"], facts.get("name", ""), facts.get(APP, ""))
        raise EngineUnavailable("the container engine ended its stream of events")

    async def listening_ports(self, name: str) -> Sequence[int]:
        found = await self._own(name)
        if found is None or not found["State"]["Running"]:
            return []
        try:
            return await asyncio.to_thread(host_ports, int(found["State"]["Pid"]))
        except OSError:
            pass  # the daemon cannot see the engine's processes
        try:
            _, output = await self._engine.exec(name, ["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        except EngineError:
            return []
        return ports_in(output.decode(errors="replace"))

    async def _found(self, app_id: str | None = None, role: str = "instance") -> builtins.list[dict[str, Any]]:
        """Our instances (or one-offs) as the engine lists them, with less than an inspection tells."""
        labels = [f"{INSTANCE}={self._label}", f"{ROLE}={role}", *([f"{APP}={app_id}"] if app_id else [])]
        params = {"all": 1, "filters": {"label": labels}}
        found: builtins.list[dict[str, Any]] = await self._engine.request("GET", "/containers/json", params=params)
        return found

    async def _create_whole(self, name: str, options: dict[str, Any]) -> bool:
        """`_create`, but when cancelled the engine may finish first: what it made could not be removed before."""
        creating = asyncio.create_task(self._create(name, options))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            await asyncio.wait([creating])
            if creating.exception() is None and creating.result():
                await self._discard(name)
            raise

    async def _create(self, name: str, options: dict[str, Any]) -> bool:
        """False when our container of this name exists already."""
        for _ in range(3):
            try:
                await self._engine.request(
                    "POST", "/containers/create", params={"name": name}, json=options, timeout=60
                )
                return True
            except EngineConflict:
                found = await self._own(name)
                if found is not None and found["State"]["Status"] not in ("removing", "dead"):
                    return False
                await self._make_way(name)
        raise EngineConflict(f"the container {name} is being removed and does not go away")

    async def _make_way(self, name: str) -> None:
        """An engine that ended over a removal leaves the container dead. One that it cannot get rid of, as of a busy
        file system, gives its name away; by its label it is found and tried again."""
        try:
            await self._remove(name)
        except EngineUnavailable:
            raise
        except EngineError as error:
            aside = f"{name}-dead-{secrets.token_hex(3)}"
            _log.warning("%s cannot be removed and is called %s from now on: %s", name, aside, error.detail)
            await self._engine.request("POST", f"/containers/{name}/rename", params={"name": aside})

    async def _start(self, name: str) -> None:
        try:
            await self._engine.request("POST", f"/containers/{name}/start", timeout=60)
        except EngineUnavailable:
            raise
        except EngineError as error:
            raise _start_error(name, error) from error

    async def _runs(self, name: str) -> bool:
        found = await self._own(name)
        return found is not None and bool(found["State"]["Running"])

    async def _own(self, name: str) -> dict[str, Any] | None:
        """The container as the engine shows it; None when it is missing. Raises EngineConflict when it is not ours."""
        try:
            found: dict[str, Any] = await self._engine.request("GET", f"/containers/{name}/json")
        except EngineNotFound:
            return None
        if found["Config"]["Labels"].get(INSTANCE) != self._label:
            raise EngineConflict(f"a container {name} exists on the engine that is not ours")
        return found

    async def _discard(self, name: str) -> None:
        """Remove what a failed start left; its own failure must not hide the first one."""
        try:
            await self._remove(name)
        except EngineError as error:
            _log.warning("%s, which does not start, cannot be removed: %s", name, error.detail)

    async def _remove(self, name: str) -> None:
        try:
            await self._engine.request("DELETE", f"/containers/{name}", params={"force": 1, "v": 1}, timeout=60)
        except EngineNotFound:
            return
        except EngineConflict:
            await self._gone(name)

    async def _gone(self, name: str) -> None:
        """Wait for a removal that is already in progress."""
        try:
            await self._engine.request(
                "POST", f"/containers/{name}/wait", params={"condition": "removed"}, timeout=_REMOVAL_TIMEOUT
            )
        except EngineNotFound:
            return


def _start_error(name: str, error: EngineError) -> EngineError:
    if "ddress already in use" in error.detail:
        return EngineConflict(f"the address of {name} is in use by another container: {error.detail}")
    return error


__all__ = ["ONE_OFF", "DockerDriver", "container_options", "network_options"]
