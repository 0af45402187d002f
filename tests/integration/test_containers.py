"""What only a real engine can show: the protection inside containers, terminals, and other people's objects."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from paasd.docker_engine import DockerEngine
from paasd.drivers.docker import DockerDriver
from paasd.errors import EngineConflict
from paasd.models import InstanceSpec, Limits, Secret
from tests.conformance.test_driver import SUBNETS, remove_all, sh
from tests.images import ensure_test_image

pytestmark = pytest.mark.engine


@dataclass
class Box:
    engine: DockerEngine
    driver: DockerDriver
    label: str
    image: str

    def spec(self, script: str, name: str = "web-1") -> InstanceSpec:
        return InstanceSpec(
            name=f"{self.label}-{name}",
            app_id="app-1",
            app="hello",
            release=1,
            process_type="web",
            index=1,
            image=self.image,
            command=sh(script),
            env={"TERM": Secret("xterm")},
            network=self.label,
            address=None,
            limits=Limits(pids=33),
            user="10001:10001",
        )

    async def output(self, script: str, **options: tuple[int, int]) -> str:
        text = b""
        async with asyncio.timeout(20), await self.driver.one_off(self.spec(script, "run"), **options) as command:
            while (piece := await command.read()) is not None:
                text += piece[1]
        return text.decode()


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    engine = DockerEngine("unix:///var/run/docker.sock")
    label = f"paasd-test-{secrets.token_hex(4)}"
    driver = DockerDriver(engine, label)
    try:
        image = await ensure_test_image(engine)
        await driver.ensure_network(label, SUBNETS)
        yield Box(engine, driver, label, image)
    finally:
        await remove_all(engine, label)
        await engine.close()


async def test_the_protection_holds_inside(box: Box) -> None:
    status = await box.output("cat /proc/self/status; ulimit -n; id -u; cat /proc/1/cmdline")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["CapEff"] == facts["CapBnd"] == "0" * 16
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert status.splitlines()[-3:-1] == ["4096", "10001"]
    assert "docker-init" in status.splitlines()[-1]


async def test_processes_are_limited(box: Box) -> None:
    script = (
        "for i in $(seq 60 2>/dev/null || echo 1); do :; done; i=0; while [ $i -lt 60 ]; do sleep 2 & i=$((i+1)); done"
    )
    assert "can't fork" in await box.output(script)


async def test_a_shell_that_waits_for_its_child_still_stops_at_once(box: Box) -> None:
    spec = box.spec("sleep 3600; echo ended")
    await box.driver.start(spec)
    async with asyncio.timeout(10):
        await box.driver.stop(spec.name, timeout=60)


async def test_a_terminal_has_a_size_that_follows(box: Box) -> None:
    assert (await box.output("sleep 0.3; stty size", tty=(132, 43))).strip() == "43 132"


async def test_a_log_goes_on_over_a_restart(box: Box) -> None:
    spec = box.spec("echo run; sleep 0.5; exit 1")
    await box.driver.start(spec)
    lines = []
    async with asyncio.timeout(30):
        async for line in box.driver.logs(spec.name, follow=True):
            lines.append(line)
            if len(lines) == 3:
                break
    assert [line.text for line in lines] == ["run"] * 3
    assert lines[0].at < lines[1].at < lines[2].at


async def test_bytes_that_are_no_text_and_long_lines_are_shown(box: Box) -> None:
    spec = box.spec("printf 'a\\377b\\n'; head -c 40000 /dev/zero; echo; sleep 60")
    await box.driver.start(spec)
    lines = []
    async with asyncio.timeout(20):
        async for line in box.driver.logs(spec.name, follow=True):
            lines.append(line.text)
            if len(lines) == 2:
                break
    assert lines[0] == "a\\xffb"
    assert lines[1] == "\0" * 16384


async def test_another_paasd_neither_sees_nor_touches_ours(box: Box) -> None:
    spec = box.spec("sleep 3600")
    await box.driver.start(spec)
    other = DockerDriver(box.engine, "paasd-test-other")
    assert await other.list() == []
    for attempt in (other.stop(spec.name), other.start(spec), other.inspect(spec.name)):
        with pytest.raises(EngineConflict, match="not ours"):
            await attempt
    with pytest.raises(EngineConflict, match="not ours"):
        await other.ensure_network(box.label, SUBNETS)
    assert len(await box.driver.list()) == 1


async def test_one_offs_get_addresses_that_instances_do_not(box: Box) -> None:
    address = (await box.output("cat /etc/hosts")).split()[-2]
    assert int(address.rpartition(".")[2]) >= 192


async def test_ports_are_found_from_inside_when_the_host_cannot_look(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int) -> list[int]:
        raise PermissionError(f"/proc/{pid}")

    monkeypatch.setattr("paasd.drivers.docker.host_ports", hidden)
    spec = box.spec("httpd -f -p 3000")
    await box.driver.start(spec)
    async with asyncio.timeout(20):
        while True:
            if ports := await box.driver.listening_ports(spec.name):
                break
            await asyncio.sleep(0.05)
    assert ports == [3000]


async def test_a_cancelled_start_leaves_nothing(box: Box) -> None:
    for delay in (0.005, 0.03, 0.08, 0.15):
        spec = box.spec("sleep 3600", f"cancel-{int(delay * 1000)}")
        task = asyncio.create_task(box.driver.start(spec))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await box.driver.inspect(spec.name) is None
