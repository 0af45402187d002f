"""Runs instances as containers of one Docker engine. Owns containers and networks labelled `paasd.instance=<label>`.

In a project's subnet the first address is the gateway's, the last quarter is what the engine gives to one-off
commands, and the rest is for the fixed addresses of instances, so that the two never meet.
"""

from __future__ import annotations

import asyncio
import builtins
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

from paasd.docker_engine import DockerEngine
from paasd.drivers.base import DriverEvent, Seen, Usage
from paasd.drivers.docker_containers import (
    APP,
    INSTANCE,
    ONE_OFF,
    ROLE,
    address_of,
    container_options,
    instance_of,
    state_of,
)
from paasd.drivers.docker_exec import exec_once
from paasd.drivers.docker_logs import follow_logs
from paasd.drivers.docker_one_off import DockerOneOff
from paasd.drivers.docker_ports import host_ports, ports_in
from paasd.drivers.docker_usage import UsageReader
from paasd.errors import EngineConflict, EngineError, EngineNotFound, EngineUnavailable
from paasd.models import Instance, InstanceSpec, LogLine

_REMOVAL_TIMEOUT = 30.0
_INSPECTIONS = 8


class DockerDriver:
    """See `drivers/base.py` for what each method promises."""

    def __init__(self, engine: DockerEngine, label: str) -> None:
        self._engine = engine
        self._label = label
        self._usage = UsageReader(engine)
        self._inspections = asyncio.Semaphore(_INSPECTIONS)

    async def ensure_network(self, name: str, subnets: Sequence[str], taken: Sequence[str] = ()) -> str:
        occupied = [IPv4Network(subnet) for subnet in taken]
        if (existing := await self._subnet(name)) is not None:
            return existing
        for subnet in subnets:
            if any(IPv4Network(subnet).overlaps(other) for other in occupied):
                continue
            if await self._create_network(name, subnet):
                return subnet
            if (existing := await self._subnet(name)) is not None:
                return existing
        raise EngineConflict(
            f"no free subnet for network {name}: tried {len(subnets)}, all are in use on the engine",
            hint="Remove unused networks, or set run.subnet_pool to a range that is free on this host.",
        )

    async def remove_network(self, name: str) -> None:
        try:
            if await self._subnet(name) is not None:
                await self._engine.request("DELETE", f"/networks/{name}")
        except EngineNotFound:
            return
        except EngineUnavailable:
            raise
        except EngineError as error:
            if "active endpoints" in error.detail:
                raise EngineConflict(f"network {name} is still in use by instances") from error
            raise

    async def networks(self) -> Sequence[str]:
        filters = json.dumps({"label": [f"{INSTANCE}={self._label}"]})
        found = await self._engine.request("GET", "/networks", params={"filters": filters})
        return [str(network["Name"]) for network in found]

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
        if await self._own(name) is None:
            return
        try:
            await self._engine.request("POST", f"/containers/{name}/stop", params={"t": timeout}, timeout=timeout + 20)
        except EngineNotFound:
            return
        await self._remove(name)

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
        options = container_options(spec, self._label, one_off=True, tty=tty is not None, stdin=stdin)
        if not await self._create_whole(spec.name, options):
            raise EngineConflict(f"a container {spec.name} exists already")
        try:
            return await DockerOneOff.start(self._engine, spec.name, tty=tty, stdin=stdin)
        except BaseException as error:
            await asyncio.shield(self._discard(spec.name))
            if isinstance(error, EngineError):
                raise _start_error(spec.name, error) from error
            raise

    async def one_offs(self) -> Mapping[str, str]:
        return {
            container["Names"][0].removeprefix("/"): container["Labels"].get(APP, "")
            for container in await self._found(role=ONE_OFF)
            if container["Names"]
        }

    async def remove_one_offs(self) -> None:
        await asyncio.gather(*(self._remove(container["Id"]) for container in await self._found(role=ONE_OFF)))

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

    async def _subnet(self, name: str) -> str | None:
        try:
            network = await self._engine.request("GET", f"/networks/{name}")
        except EngineNotFound:
            return None
        if network["Labels"].get(INSTANCE) != self._label:
            raise EngineConflict(f"a network {name} exists on the engine that is not ours")
        return str(network["IPAM"]["Config"][0]["Subnet"])

    async def _create_network(self, name: str, subnet: str) -> bool:
        """False when the subnet or the name is taken."""
        try:
            await self._engine.request("POST", "/networks/create", json=network_options(name, subnet, self._label))
        except EngineUnavailable:
            raise
        except EngineConflict:
            return False
        except EngineError as error:
            if any(words in error.detail for words in ("overlap", "have same subnet", "conflicts with network")):
                return False
            raise
        return True

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
                await self._gone(name)
        raise EngineConflict(f"the container {name} is being removed and does not go away")

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
        except EngineError:
            return

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


def network_options(name: str, subnet: str, label: str) -> dict[str, Any]:
    network = IPv4Network(subnet)
    one_offs = builtins.list(network.subnets(prefixlen_diff=2))[-1]
    pool = {"Subnet": subnet, "Gateway": str(network[1]), "IPRange": str(one_offs)}
    return {
        "Name": name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "IPAM": {"Driver": "default", "Config": [pool]},
        "Labels": {INSTANCE: label},
    }


def _start_error(name: str, error: EngineError) -> EngineError:
    if "ddress already in use" in error.detail:
        return EngineConflict(f"the address of {name} is in use by another container: {error.detail}")
    return error


__all__ = ["ONE_OFF", "DockerDriver", "container_options", "network_options"]
