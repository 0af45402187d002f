"""Projects' private networks on a Docker engine.

In a project's subnet the first address is the gateway's, the last quarter is what the engine gives to one-off
commands, and the rest is for the fixed addresses of instances, so that the two never meet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from paasd.docker_engine import DockerEngine
from paasd.drivers.docker_containers import INSTANCE
from paasd.errors import EngineConflict, EngineError, EngineNotFound, EngineUnavailable


class DockerNetworks:
    """See `drivers.base.Driver` for what each method promises."""

    def __init__(self, engine: DockerEngine, label: str) -> None:
        self._engine = engine
        self._label = label

    async def ensure(self, name: str, subnets: Sequence[str], taken: Sequence[str] = ()) -> str:
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

    async def remove(self, name: str) -> None:
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

    async def names(self) -> Sequence[str]:
        filters = json.dumps({"label": [f"{INSTANCE}={self._label}"]})
        found = await self._engine.request("GET", "/networks", params={"filters": filters})
        return [str(network["Name"]) for network in found]

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


def network_options(name: str, subnet: str, label: str) -> dict[str, Any]:
    network = IPv4Network(subnet)
    one_offs = list(network.subnets(prefixlen_diff=2))[-1]
    pool = {"Subnet": subnet, "Gateway": str(network[1]), "IPRange": str(one_offs)}
    return {
        "Name": name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "IPAM": {"Driver": "default", "Config": [pool]},
        "Labels": {INSTANCE: label},
    }
