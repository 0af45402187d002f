"""What an instance can reach, seen from inside containers: not the host's services, not the metadata address, not
another project; but the edge, its own project and the world beyond the host."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from paasd.config import Config
from paasd.config_file import changed
from paasd.docker_engine import DockerEngine
from paasd.drivers.docker import DockerDriver
from paasd.models import InstanceSpec, Limits
from paasd.run.firewall import Firewall, chain_names, forward_rules, name_servers
from tests.apps import app
from tests.box import Box, docker, eventually
from tests.conformance.test_driver import SUBNETS, remove_all, sh
from tests.images import ensure_test_image

pytestmark = pytest.mark.engine


def rules(label: str) -> list[str]:
    """Lines of iptables that name this label's chains."""
    done = subprocess.run(["iptables-save", "-t", "filter"], capture_output=True, text=True, timeout=20, check=True)
    return [line for line in done.stdout.splitlines() if f"PAASD-{label}-" in line]


@dataclass
class Field:
    """Two projects' networks with a running web server each, and a listener on the host."""

    driver: DockerDriver
    engine: DockerEngine
    label: str
    firewall: Firewall
    listener: socket.socket
    subnets: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def address(self, project: int, host: int = 2) -> str:
        return str(IPv4Network(self.subnets[project])[host])

    async def start(self, project: int, image: str) -> None:
        network = f"{self.label}-{project}"
        self.subnets.append(await self.driver.ensure_network(network, SUBNETS, self.subnets))
        for number in (2, 3):
            await self.driver.start(self.spec(project, number, image))

    def spec(self, project: int, number: int, image: str) -> InstanceSpec:
        return InstanceSpec(
            name=f"{self.label}-{project}-{number}",
            app_id="a",
            app="a",
            release=1,
            process_type="web",
            index=number,
            image=image,
            command=sh("mkdir -p /tmp/w && echo hi > /tmp/w/index.html; exec httpd -f -p 5000 -h /tmp/w"),
            env={},
            network=f"{self.label}-{project}",
            address=self.address(project, number),
            limits=Limits(),
            user="10001:10001",
        )

    async def reach(self, address: str, port: int, project: int = 0) -> str:
        """`open`, `refused` or `silent`, seen from an instance of the project."""
        command = ["nc", "-w", "2", address, str(port), "-e", "/bin/echo", "hi"]
        status, output = await self.engine.exec(f"{self.label}-{project}-2", command, timeout=20)
        if status == 0:
            return "open"
        return "refused" if b"refused" in output else f"silent ({output.decode(errors='replace').strip()})"


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Field]:
    engine = DockerEngine("unix:///var/run/docker.sock")
    label = f"pf{secrets.token_hex(3)}"
    config = Config(data_dir=tmp_path, label=label)
    listener = socket.create_server(("0.0.0.0", 0), backlog=64)
    ground = Field(DockerDriver(engine, label), engine, label, Firewall(config), listener)
    try:
        image = await ensure_test_image(engine)
        await ground.start(0, image)
        await ground.start(1, image)
        await ready(ground)
        yield ground
    finally:
        listener.close()
        await ground.firewall.remove()
        await remove_all(engine, label)
        await engine.close()


async def ready(ground: Field) -> None:
    for _ in range(200):
        states = [await ground.reach(ground.address(p), 5000, project=p) for p in (0, 1)]
        if states == ["open", "open"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the instances do not listen: {states}")


async def test_host_services_are_out_of_reach_but_the_edge_is_not(ground: Field) -> None:
    gateway = ground.address(0, 1)
    with socket.create_server(("0.0.0.0", 0), backlog=64) as edge:
        edge_port = edge.getsockname()[1]
        assert await ground.reach(gateway, ground.port) == "open", "nothing to protect from"
        assert await ground.firewall.apply(ground.subnets, [edge_port])
        assert ground.firewall.trouble == ""
        assert await ground.reach(gateway, ground.port) == "refused"
        assert await ground.reach(gateway, edge_port) == "open"
        # The other project's gateway is an address of the host too.
        assert await ground.reach(ground.address(1, 1), ground.port) == "refused"
        assert await ground.reach(ground.address(0, 3), 5000) == "open", "its own project"


async def test_the_host_reaches_instances_behind_the_rules(ground: Field) -> None:
    await ground.firewall.apply(ground.subnets, [])
    reader, writer = await asyncio.open_connection(ground.address(0), 5000)
    writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    assert b"hi" in await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_metadata_and_other_projects_are_refused_at_once(ground: Field) -> None:
    assert await ground.reach("169.254.169.254", 80) != "refused", "refused already without our rules"
    await ground.firewall.apply(ground.subnets, [])
    assert await ground.reach("169.254.169.254", 80) == "refused"
    assert await ground.reach(ground.address(1), 5000) != "open"
    assert await ground.reach(ground.address(0), 5000, project=1) != "open"


async def test_other_projects_are_refused_without_the_engines_own_isolation(ground: Field) -> None:
    """Rules of somebody else that stand before the engine's drops and let everything pass: ours must hold alone."""
    free = ["-s", ground.subnets[0], "-d", ground.subnets[1], "-j", "ACCEPT"]
    back = ["-s", ground.subnets[1], "-d", ground.subnets[0], "-j", "ACCEPT"]
    for rule in (free, back):
        subprocess.run(["iptables", "-w", "-I", "DOCKER-USER", "1", *rule], check=True, timeout=20)
    try:
        assert await ground.reach(ground.address(1), 5000) == "open", "the engine's isolation is still in the way"
        await ground.firewall.apply(ground.subnets, [])
        # A jump that is put in place stands before everything else.
        assert await ground.reach(ground.address(1), 5000) == "refused"
    finally:
        for rule in (free, back):
            subprocess.run(["iptables", "-w", "-D", "DOCKER-USER", *rule], check=True, timeout=20)


async def test_what_others_flushed_comes_back_and_nothing_is_done_twice(ground: Field) -> None:
    apply = lambda: ground.firewall.apply(ground.subnets, [80])  # noqa: E731
    assert await apply()
    before = rules(ground.label)
    assert not await apply(), "changed again without need"
    chain, forward = chain_names(ground.label)
    jump = ["iptables", "-w", "-D", "INPUT", "-j", chain]
    for damage in (["iptables", "-w", "-F", chain], ["iptables", "-w", "-F", forward], jump):
        subprocess.run(damage, check=True, timeout=20)
        assert await apply(), damage
        assert rules(ground.label) == before, damage
    assert await ground.reach(ground.address(0, 1), ground.port) == "refused"


async def test_rules_of_a_dead_paasd_do_not_bind_who_gets_its_subnet(ground: Field, tmp_path: Path) -> None:
    dead = Firewall(Config(data_dir=tmp_path, label=f"{ground.label}d"))
    try:
        await dead.apply([*ground.subnets, "10.250.1.0/24"], [])
        gateway = ground.address(0, 1)
        assert await ground.reach(gateway, ground.port) == "refused"
        await ground.firewall.apply(ground.subnets, [ground.port])
        assert await ground.reach(gateway, ground.port) == "open"
        assert any("10.250.1.0/24" in line for line in rules(f"{ground.label}d")), "took away more than its own"
    finally:
        await dead.remove()


async def test_removing_takes_everything_away(ground: Field) -> None:
    await ground.firewall.apply(ground.subnets, [80])
    assert rules(ground.label)
    await ground.firewall.remove()
    assert rules(ground.label) == []
    await ground.firewall.remove()
    assert await ground.reach(ground.address(0, 1), ground.port) == "open"


async def test_instances_have_no_ipv6_route(ground: Field) -> None:
    _, routes = await ground.engine.exec(f"{ground.label}-0-2", ["cat", "/proc/net/ipv6_route"])
    devices = {line.split()[-1] for line in routes.decode().splitlines()}
    assert devices <= {"lo"}, routes.decode()


async def test_a_switched_off_firewall_sets_nothing(tmp_path: Path) -> None:
    label = f"pf{secrets.token_hex(3)}"
    firewall = Firewall(changed(Config(data_dir=tmp_path, label=label), {"run.firewall": False}))
    assert not await firewall.apply(["10.250.1.0/24"], [80])
    assert rules(label) == []


async def test_without_the_right_to_change_rules_it_is_said_once_and_nothing_fails(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from paasd.config import Config;"
        "from paasd.run.firewall import Firewall; f = Firewall(Config(data_dir=Path('/x'), label='pfnone'));"
        "print(asyncio.run(f.apply(['10.250.1.0/24'], [80])), asyncio.run(f.apply([], [])), bool(f.trouble))"
    )
    command = ["/usr/sbin/capsh", "--drop=cap_net_admin", "--", "-c", 'exec "$0" "$@"']
    done = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["False", "False", "True"], done
    assert done.stderr.count("iptables is of no use") == 1
    assert rules("pfnone") == []


def test_chain_names_fit_whatever_the_label() -> None:
    labels = ["paasd", "x" * 200, "a b;c", "ümlaut"]
    names = [name for label in labels for name in chain_names(label)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 28 and name.isascii() and " " not in name for name in names)


def test_a_name_server_in_the_metadata_range_stays_reachable() -> None:
    """As on clouds whose name server is the metadata address."""
    assert name_servers("# x\nnameserver 169.254.169.254\nnameserver ::1\nnameserver 127.0.0.53\n") == [
        "169.254.169.254"
    ]
    text = "\n".join(forward_rules(["10.201.0.0/24"], "10.201.0.0/16"))
    assert text.index("-d 10.201.0.0/24 -j RETURN") < text.index("-d 169.254.0.0/16 ")


async def test_a_deployed_app_is_fenced_in_before_it_runs(box: Box) -> None:
    """And fenced in again when somebody flushed the rules; the box's end takes them away (tests/box.py)."""
    name = f"fence{secrets.token_hex(3)}"
    assert box.push(box.repository(app()), name).status == 0
    found = docker("GET", f"/containers/{next(c['Id'] for c in box.containers() if name in c['Names'][0])}/json")
    network = next(iter(found["NetworkSettings"]["Networks"].values()))
    gateway, chain = network["Gateway"], chain_names(box.label)[0]

    def reach(port: int) -> str:
        code = f"import socket; socket.create_connection(('{gateway}', {port}), 5); print('open')"
        return box.ssh("run", name, "python3", "-c", shlex.quote(code)).all

    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert "ConnectionRefusedError" in reach(port)
        assert "ConnectionRefusedError" in reach(box.ssh_port)
        assert "open" in reach(box.http_port)
        subprocess.run(["iptables", "-w", "-F", chain], check=True, timeout=20)
        eventually(lambda: any(chain in line and "tcp-reset" in line for line in rules(box.label)), 40)
        assert "ConnectionRefusedError" in reach(port)
    box.ssh("apps:destroy", name, "--force")
