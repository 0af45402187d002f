"""What `drivers/base.py` promises, on the in-memory fake and on a real Docker engine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paasd.docker_engine import DockerEngine
from paasd.drivers.base import Driver, DriverEvent, Seen
from paasd.drivers.docker import DockerDriver
from paasd.drivers.docker_usage import UsageReader
from paasd.errors import EngineConflict, EngineError, EngineNotFound
from paasd.models import Instance, InstanceSpec, InstanceState, LogLine, Secret
from tests.fakes import FakeDriver
from tests.images import TEST_IMAGE, ensure_test_image

SUBNETS = [f"10.213.{third}.0/24" for third in range(24)]
SLEEP = ("/bin/sleep", "3600")


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


@dataclass
class Rig:
    """A driver, and what a test needs to reach behind its back."""

    driver: Driver
    label: str
    halt: Callable[[str], Awaitable[None]]
    """End an instance without removing it."""
    successor: Callable[[], Driver]
    """The driver of the next daemon."""

    def spec(self, name: str = "web-1", command: tuple[str, ...] = SLEEP, **changes: Any) -> InstanceSpec:
        facts: dict[str, Any] = {
            "name": f"{self.label}-{name}",
            "app_id": "app-1",
            "app": "hello",
            "release": 3,
            "process_type": "web",
            "index": 1,
            "image": TEST_IMAGE,
            "command": command,
            "env": {"GREETING": Secret("hello")},
            "network": self.label,
            "address": None,
        }
        return InstanceSpec(**(facts | changes))

    async def network(self) -> str:
        """The network instances run in; its first three numbers, to make addresses with."""
        subnet = await self.driver.ensure_network(self.label, SUBNETS)
        return subnet.rpartition(".")[0]


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    label = f"paasd-test-{secrets.token_hex(4)}"
    if request.param == "fake":
        fake = FakeDriver([TEST_IMAGE])

        async def halt_fake(name: str) -> None:
            fake.end(name)

        yield Rig(fake, label, halt_fake, fake.successor)
        return
    engine = DockerEngine("unix:///var/run/docker.sock")
    await ensure_test_image(engine)

    async def halt(name: str) -> None:
        await engine.request("POST", f"/containers/{name}/stop", params={"t": 0})

    try:
        yield Rig(DockerDriver(engine, label), label, halt, lambda: DockerDriver(engine, label))
    finally:
        await remove_all(engine, label)
        await engine.close()


async def remove_all(engine: DockerEngine, label: str) -> None:
    filters = {"filters": {"label": [f"paasd.instance={label}"]}}
    for container in await engine.request("GET", "/containers/json", params={"all": 1, **filters}):
        await engine.request("DELETE", f"/containers/{container['Id']}", params={"force": 1, "v": 1})
    for network in await engine.request("GET", "/networks", params=filters):
        await engine.request("DELETE", f"/networks/{network['Id']}")


async def until(holds: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again and again until the answer is true."""
    async with asyncio.timeout(20):
        while True:
            if answer := await holds():
                return answer
            await asyncio.sleep(0.02)


async def eventually(rig: Rig, name: str, true: Callable[[Instance], bool]) -> Instance:
    async def holds() -> Instance | None:
        instance = await rig.driver.inspect(name)
        return instance if instance is not None and true(instance) else None

    found: Instance = await until(holds)
    return found


async def test_a_network_is_made_once(rig: Rig) -> None:
    first = await rig.driver.ensure_network(rig.label, SUBNETS)
    assert first in SUBNETS
    assert await rig.driver.ensure_network(rig.label, list(reversed(SUBNETS))) == first


async def test_two_networks_never_share_a_subnet(rig: Rig) -> None:
    first = await rig.driver.ensure_network(rig.label, SUBNETS)
    second = await rig.driver.ensure_network(f"{rig.label}-b", [first, *SUBNETS])
    assert second != first


async def test_taken_subnets_are_left_alone(rig: Rig) -> None:
    chosen = await rig.driver.ensure_network(rig.label, SUBNETS, taken=SUBNETS[:12])
    assert chosen in SUBNETS[12:]


async def test_no_free_subnet_is_a_conflict(rig: Rig) -> None:
    with pytest.raises(EngineConflict, match="no free subnet"):
        await rig.driver.ensure_network(rig.label, SUBNETS[:2], taken=["10.213.0.0/16"])


async def test_a_network_is_removed_when_unused(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec())
    with pytest.raises(EngineConflict, match="in use"):
        await rig.driver.remove_network(rig.label)
    await rig.driver.stop(rig.spec().name, timeout=5)
    await rig.driver.remove_network(rig.label)
    await rig.driver.remove_network(rig.label)


async def test_a_started_instance_is_listed_as_it_was_asked_for(rig: Rig) -> None:
    address = f"{await rig.network()}.20"
    spec = rig.spec(address=address)
    await rig.driver.start(spec)
    instance = await rig.driver.inspect(spec.name)
    assert instance is not None
    assert list(await rig.driver.list()) == [instance]
    assert await rig.driver.survey() == {instance.name: Seen(instance.state, instance.address)}
    assert (instance.name, instance.app_id, instance.release) == (spec.name, "app-1", 3)
    assert (instance.process_type, instance.index, instance.image) == ("web", 1, TEST_IMAGE)
    assert (instance.state, instance.address) == (InstanceState.RUNNING, address)
    assert instance.pid and instance.started_at and instance.exit_code is None and instance.restarts == 0


async def test_starting_twice_changes_nothing(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec())
    before = await rig.driver.inspect(rig.spec().name)
    await rig.driver.start(rig.spec())
    assert await rig.driver.inspect(rig.spec().name) == before


async def test_a_stopped_instance_is_started_again(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec()
    await rig.driver.start(spec)
    await rig.halt(spec.name)
    await eventually(rig, spec.name, lambda instance: instance.state is InstanceState.EXITED)
    await rig.driver.start(spec)
    await eventually(rig, spec.name, lambda instance: instance.state is InstanceState.RUNNING)


async def test_a_halted_instance_is_resumed_as_it_was(rig: Rig) -> None:
    prefix = await rig.network()
    spec = rig.spec(address=f"{prefix}.77")
    await rig.driver.start(spec)
    assert await rig.driver.resume(spec.name)
    assert await rig.driver.halt(spec.name, 0)
    await eventually(rig, spec.name, lambda instance: instance.state is InstanceState.EXITED)
    assert await rig.driver.resume(spec.name)
    again = await eventually(rig, spec.name, lambda instance: instance.state is InstanceState.RUNNING)
    assert (again.address, again.restarts, again.exit_code) == (f"{prefix}.77", 0, None)
    await rig.driver.stop(spec.name, 0)
    assert not await rig.driver.resume(spec.name)


async def test_instances_are_listed_by_app(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec("one"))
    await rig.driver.start(rig.spec("two", app_id="app-2"))
    assert [instance.app_id for instance in await rig.driver.list("app-2")] == ["app-2"]
    assert len(await rig.driver.list()) == 2


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"image": "paasd-test/none:1"}, EngineNotFound),
        ({"network": "paasd-test-none"}, EngineError),
    ],
)
async def test_a_failed_start_leaves_nothing(rig: Rig, changes: dict[str, Any], kind: type[EngineError]) -> None:
    await rig.network()
    with pytest.raises(kind):
        await rig.driver.start(rig.spec(**changes))
    assert await rig.driver.inspect(rig.spec().name) is None


async def test_an_address_in_use_is_a_conflict(rig: Rig) -> None:
    address = f"{await rig.network()}.20"
    await rig.driver.start(rig.spec("one", address=address))
    with pytest.raises(EngineConflict, match="address"):
        await rig.driver.start(rig.spec("two", address=address))
    assert len(await rig.driver.list()) == 1


async def test_stop_removes_and_may_be_repeated(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec())
    await rig.driver.stop(rig.spec().name, timeout=5)
    assert await rig.driver.inspect(rig.spec().name) is None
    await rig.driver.stop(rig.spec().name)


async def test_stop_ends_an_instance_that_ignores_sigterm(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec(command=sh("trap '' TERM; sleep 3600")))
    await rig.driver.stop(rig.spec().name, timeout=1)
    assert await rig.driver.inspect(rig.spec().name) is None


async def test_a_crashing_instance_is_restarted_and_says_so(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec(command=sh("exit 3"))
    await rig.driver.start(spec)
    instance = await eventually(rig, spec.name, lambda i: i.restarts > 0 and i.state is InstanceState.CRASHING)
    assert instance.exit_code == 3


async def test_logs_come_in_order_with_their_stream(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec(command=sh("echo one; echo two >&2; sleep 3600"))
    await rig.driver.start(spec)

    async def both() -> list[LogLine] | None:
        lines = [line async for line in rig.driver.logs(spec.name)]
        return lines if len(lines) == 2 else None

    lines = await until(both)
    assert sorted((line.text, line.stderr, line.instance) for line in lines) == [
        ("one", False, "web.1"),
        ("two", True, "web.1"),
    ]
    assert lines == sorted(lines, key=lambda line: line.at)
    assert [line async for line in rig.driver.logs(spec.name, tail=1)] == lines[-1:]


async def test_a_command_inside_an_instance_tells_its_status_and_output(rig: Rig) -> None:
    await rig.network()
    name = rig.spec().name
    with pytest.raises(EngineNotFound):
        await rig.driver.exec_once(name, sh("exit 0"), 5)
    await rig.driver.start(rig.spec())
    assert await rig.driver.exec_once(name, sh("echo hello; exit 3"), 5) == (3, "hello\n")
    assert (await rig.driver.exec_once(name, ["/bin/nothing-of-this-name"], 5))[0] in (126, 127)
    with pytest.raises(TimeoutError):
        await rig.driver.exec_once(name, ("/bin/sleep", "3600"), 0.5)
    await rig.halt(name)
    with pytest.raises(EngineError):
        await rig.driver.exec_once(name, sh("exit 0"), 5)


async def test_usage_is_told_of_what_runs(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec("one"))
    await rig.driver.start(rig.spec("two"))
    one, two = rig.spec("one").name, rig.spec("two").name
    for _ in range(2):
        found = await rig.driver.usage([one, two, "nothing"])
        assert set(found) == {one, two}
        assert found[one].cpu_seconds > 0 and 0 < found[one].memory < 2**26
        assert (found[one].cpus, found[one].memory_limit) == (1.0, 512 * 2**20)
    await rig.halt(one)
    await eventually(rig, one, lambda instance: instance.state is InstanceState.EXITED)
    assert set(await rig.driver.usage([one, two])) == {two}


@pytest.mark.engine
async def test_the_engine_tells_of_usage_where_groups_cannot_be_read(tmp_path: Path) -> None:
    engine, label = DockerEngine("unix:///var/run/docker.sock"), f"paasd-test-{secrets.token_hex(4)}"
    await ensure_test_image(engine)
    driver = DockerDriver(engine, label)
    rig = Rig(driver, label, lambda name: asyncio.sleep(0), lambda: driver)
    try:
        await rig.network()
        await driver.start(rig.spec())
        found = await UsageReader(engine, tmp_path).read([rig.spec().name])
        assert found[rig.spec().name].memory > 0 and found[rig.spec().name].cpus == 1.0
    finally:
        await remove_all(engine, label)
        await engine.close()


@pytest.mark.engine
async def test_a_command_that_takes_too_long_is_ended() -> None:
    engine, label = DockerEngine("unix:///var/run/docker.sock"), f"paasd-test-{secrets.token_hex(4)}"
    await ensure_test_image(engine)
    driver = DockerDriver(engine, label)
    rig = Rig(driver, label, lambda name: asyncio.sleep(0), lambda: driver)
    try:
        await rig.network()
        await driver.start(rig.spec())
        with pytest.raises(TimeoutError):
            await driver.exec_once(rig.spec().name, ("/bin/sleep", "3599"), 0.5)

        async def is_gone() -> bool:
            return "3599" not in (await driver.exec_once(rig.spec().name, ("/bin/ps",), 5))[1]

        await until(is_gone)
    finally:
        await remove_all(engine, label)
        await engine.close()


async def test_followed_logs_end_when_the_instance_vanishes(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec(command=sh("echo ready; sleep 3600"))
    await rig.driver.start(spec)
    lines = []
    async with asyncio.timeout(20):
        async for line in rig.driver.logs(spec.name, follow=True):
            lines.append(line.text)
            await rig.driver.stop(spec.name, timeout=0)
    assert lines == ["ready"]


async def test_logs_of_a_missing_instance_are_empty(rig: Rig) -> None:
    assert [line async for line in rig.driver.logs("paasd-test-none", follow=True)] == []


async def test_a_one_off_gives_its_output_and_status(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec("run", sh("echo out; echo err >&2; exit 7"))
    output = {1: b"", 2: b""}
    async with asyncio.timeout(20):
        async with await rig.driver.one_off(spec) as command:
            while (piece := await command.read()) is not None:
                output[piece[0]] += piece[1]
            assert await command.wait() == 7
    assert output == {1: b"out\n", 2: b"err\n"}
    assert await rig.driver.inspect(spec.name) is None


async def test_a_one_off_reads_its_input_to_the_end(rig: Rig) -> None:
    await rig.network()
    async with asyncio.timeout(20):
        async with await rig.driver.one_off(rig.spec("run", ("/bin/cat",)), stdin=True) as command:
            assert await rig.driver.list() == []
            await command.write(b"to and fro")
            assert await command.read() == (1, b"to and fro")
            await command.close_input()
            assert await command.read() is None
            assert await command.wait() == 0


async def test_a_one_off_that_cannot_start_leaves_nothing(rig: Rig) -> None:
    await rig.network()
    with pytest.raises(EngineNotFound):
        await rig.driver.one_off(rig.spec("run", image="paasd-test/none:1"))
    assert await rig.driver.inspect(rig.spec("run").name) is None


async def test_a_missing_command_ends_with_status_127(rig: Rig) -> None:
    await rig.network()
    async with asyncio.timeout(20):
        async with await rig.driver.one_off(rig.spec("run", ("/bin/none",))) as command:
            assert await command.wait() == 127


async def test_events_tell_what_happens(rig: Rig) -> None:
    await rig.network()
    seen: list[DriverEvent] = []
    spec, first = rig.spec(), rig.spec("web-2")
    listens = asyncio.Event()

    async def listen() -> None:
        async for event in rig.driver.events():
            listens.set()
            if event.instance == spec.name:
                seen.append(event)
                if event.action == "destroy":
                    return

    listener = asyncio.create_task(listen())
    async with asyncio.timeout(20):
        while not listens.is_set():
            await rig.driver.start(first)
            await rig.driver.stop(first.name, timeout=0)
            await asyncio.sleep(0.05)  # the fake one lets nobody else in
    await rig.driver.start(spec)
    await rig.driver.stop(spec.name, timeout=5)
    await asyncio.wait_for(listener, 20)
    assert seen == [DriverEvent(action, spec.name, "app-1") for action in ("start", "die", "destroy")]


async def test_listening_ports_are_found(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec(command=("/bin/httpd", "-f", "-p", "3000"))
    await rig.driver.start(spec)
    assert list(await until(lambda: rig.driver.listening_ports(spec.name))) == [3000]
    assert list(await rig.driver.listening_ports("paasd-test-none")) == []


async def test_one_offs_of_a_killed_daemon_are_removed_and_instances_are_not(rig: Rig) -> None:
    await rig.network()
    instance = rig.spec("web-1", ("/bin/sleep", "60"))
    await rig.driver.start(instance)
    await rig.driver.one_off(rig.spec("left", ("/bin/sleep", "60")))
    await rig.driver.launch(rig.spec("goes-on", ("/bin/sleep", "60")))
    await rig.driver.remove_one_offs()
    assert rig.spec("left").name in await rig.driver.one_offs(), "somebody uses it"
    await rig.successor().remove_one_offs()
    assert rig.spec("left").name not in await rig.driver.one_offs()
    assert await rig.driver.one_offs() == {rig.spec("goes-on").name: "app-1"}
    assert await rig.driver.inspect(instance.name) is not None


async def test_one_offs_are_told_by_app_and_stopped_one_by_one(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec("web-1"))
    await rig.driver.one_off(rig.spec("first", SLEEP))
    await rig.driver.one_off(rig.spec("second", SLEEP, app_id="app-2"))
    first, second = rig.spec("first").name, rig.spec("second").name
    assert await rig.driver.one_offs() == {first: "app-1", second: "app-2"}
    await rig.driver.stop(first, timeout=1)
    assert await rig.driver.one_offs() == {second: "app-2"}
    assert await rig.driver.inspect(rig.spec("web-1").name) is not None


async def test_a_launched_command_leaves_its_status_and_logs(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec("job", sh("echo out; echo err >&2; exit 7"))
    await rig.driver.launch(spec)
    async with asyncio.timeout(20):
        ended = await rig.driver.wait(spec.name)
    assert ended is not None
    assert (ended.state, ended.exit_code, ended.restarts) == (InstanceState.EXITED, 7, 0)
    assert ended.started_at and ended.ended_at
    assert sorted(line.text for line in [line async for line in rig.driver.logs(spec.name)]) == ["err", "out"]
    assert await rig.driver.list() == []
    await rig.driver.stop(spec.name)
    assert await rig.driver.wait(spec.name) is None
    assert await rig.driver.one_offs() == {}


async def test_a_launched_command_is_halted_and_can_still_be_read(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec("job", sh("echo begun; exec sleep 3600"))
    await rig.driver.launch(spec)
    await rig.driver.one_off(rig.spec("run", SLEEP))
    assert await rig.driver.one_offs(detached=True) == {spec.name: "app-1"}
    waiting = asyncio.create_task(rig.driver.wait(spec.name))
    assert await rig.driver.halt(spec.name, timeout=1)
    ended = await asyncio.wait_for(waiting, 20)
    assert ended is not None
    assert (ended.state, ended.exit_code) == (InstanceState.EXITED, 143)
    assert [line.text async for line in rig.driver.logs(spec.name)] == ["begun"]
    assert not await rig.driver.halt("paasd-test-none")


async def test_a_launch_that_fails_leaves_nothing_and_one_name_runs_once(rig: Rig) -> None:
    await rig.network()
    with pytest.raises(EngineNotFound):
        await rig.driver.launch(rig.spec("job", image="paasd-test/none:1"))
    assert await rig.driver.inspect(rig.spec("job").name) is None
    await rig.driver.launch(rig.spec("job"))
    with pytest.raises(EngineConflict):
        await rig.driver.launch(rig.spec("job"))


async def test_followed_logs_of_a_launched_command_end_when_it_is_removed(rig: Rig) -> None:
    await rig.network()
    spec = rig.spec("job", sh("echo only; exit 0"))
    await rig.driver.launch(spec)
    lines = []
    async with asyncio.timeout(20):
        async for line in rig.driver.logs(spec.name, follow=True):
            lines.append(line.text)
            await rig.driver.stop(spec.name)
    assert lines == ["only"]


async def test_a_command_runs_inside_an_instance(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec())
    output = {1: b"", 2: b""}
    async with asyncio.timeout(20):
        async with await rig.driver.exec(rig.spec().name, sh("echo out; echo err >&2; exit 5")) as command:
            while (piece := await command.read()) is not None:
                output[piece[0]] += piece[1]
            assert await command.wait() == 5
        async with await rig.driver.exec(rig.spec().name, ("/bin/cat",), stdin=True) as command:
            await command.write(b"in")
            assert await command.read() == (1, b"in")
            await command.close_input()
            assert await command.read() is None
            assert await command.wait() == 0
    assert output == {1: b"out\n", 2: b"err\n"}
    instance = await rig.driver.inspect(rig.spec().name)
    assert instance is not None and instance.state is InstanceState.RUNNING


async def test_a_command_needs_a_running_instance(rig: Rig) -> None:
    await rig.network()
    with pytest.raises(EngineNotFound):
        await rig.driver.exec(rig.spec().name, ("/bin/cat",))
    await rig.driver.start(rig.spec())
    await rig.halt(rig.spec().name)
    with pytest.raises(EngineConflict):
        await rig.driver.exec(rig.spec().name, ("/bin/cat",))


async def test_a_description_masks_the_environment(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec())
    found = await rig.driver.describe(rig.spec().name)
    assert found is not None
    assert found["Name"] == f"/{rig.spec().name}"
    assert "GREETING=****" in found["Config"]["Env"]
    assert "hello" not in str(found["Config"]["Env"])
    assert await rig.driver.describe("paasd-test-none") is None


async def test_leaving_a_command_hangs_up_on_what_it_left(rig: Rig) -> None:
    await rig.network()
    await rig.driver.start(rig.spec())
    async with asyncio.timeout(20):
        async with await rig.driver.exec(rig.spec().name, sh("echo ready; sleep 1234"), tty=(80, 24)) as command:
            piece = await command.read()
            assert piece is not None and piece[1].startswith(b"ready")
        async with await rig.driver.exec(rig.spec().name, ("/bin/ps",)) as command:
            listing = b""
            while (piece := await command.read()) is not None:
                listing += piece[1]
    assert b"1234" not in listing
