"""What a build can reach: not the host's services, not the metadata address, no app; but what it needs of the host.

On an engine of the tests' own: the rules hold for everything in an engine's default network, and any other paasd on the
machine's engine has them too, so that there nothing could be seen to be missing."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paasd.build.network import BuildNetwork, parse_services, proxies
from paasd.config import BuildConfig, Config
from paasd.docker_engine import DockerEngine
from paasd.edge_values import Endpoint
from paasd.errors import InvalidInput
from paasd.run.firewall import Firewall
from tests.box import Box
from tests.engine import Engine, running_engine
from tests.images import TEST_IMAGE
from tests.integration.test_firewall import rules

Boxes = Callable[..., Box]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


class Service:
    """Something of the host's that says hi to whoever connects."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("0.0.0.0", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.sendall(b"hi\n")
        except OSError:
            return


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def settings(engine: Engine, build: str = "", run: str = "") -> str:
    return (
        f'docker_host = "unix://{engine.socket}"\n[build]\ncgroup = "{engine.cgroup}/buildkit"\n{build}'
        f'[run]\nsubnet_pool = "{engine.pool}"\n{run}'
    )


def seen(box: Box, *targets: tuple[str, int]) -> dict[tuple[str, int], str]:
    """What a pushed build gets when it connects: `hi`, `refused` or `silent`."""
    steps = [
        f"RUN echo {address}:{port} $(nc -w 3 {address} {port} </dev/null 2>&1 || echo failed) : {secrets.token_hex(4)}"
        for address, port in targets
    ]
    dockerfile = "\n".join([f"FROM {TEST_IMAGE}", "COPY . /www/", *steps, ""])
    files = {"Dockerfile": dockerfile, "Procfile": "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\n", "index.html": "x"}
    done = box.push(box.repository(files), "look", "+main")
    assert done.status == 0, done
    found = {}
    for address, port in targets:
        lines = [line for line in done.all.splitlines() if f"  {address}:{port} " in line]
        assert len(lines) == 1, done.all
        found[address, port] = next((word for word in ("hi", "refused") if f" {word} " in lines[0]), "silent")
    return found


@pytest.mark.engine
def test_the_host_and_the_metadata_address_are_refused_at_once(
    engine: Engine, new_box: Boxes, service: Service
) -> None:
    host, metadata = (engine.gateway, service.port), ("169.254.169.254", 80)
    open_box = new_box(settings(engine, "firewall = false\n")).start()
    before = seen(open_box, host, metadata)
    assert before[host] == "hi" and before[metadata] != "refused", "nothing to protect from"
    open_box.close()
    box = new_box(settings(engine)).start()
    ssh, http, own = ((engine.gateway, port) for port in (box.ssh_port, box.http_port, service.port))
    assert set(seen(box, ssh, http, own, metadata).values()) == {"refused"}


@pytest.mark.engine
def test_a_build_has_no_ipv6_route(engine: Engine, new_box: Boxes) -> None:
    box = new_box(settings(engine)).start()
    step = f"echo devices $(/bin/busybox awk '{{print $NF}}' /proc/net/ipv6_route) end {secrets.token_hex(4)}"
    files = {"Dockerfile": f"FROM {TEST_IMAGE}\nRUN {step}\nRUN exit 1\n", "Procfile": "web: true\n"}
    output = box.push(box.repository(files), "look").all
    line = next(line for line in output.splitlines() if "  devices " in line)
    assert set(line.partition("devices")[2].partition("end")[0].split()) <= {"lo"}, line


@pytest.mark.engine
def test_a_build_reaches_no_app(engine: Engine, new_box: Boxes) -> None:
    box = new_box(settings(engine)).start()
    assert seen(box) == {}
    address = box.json("ps:report", "look")["instances"][0]["address"].partition(":")[0]
    assert seen(box, (address, 5000)) == {(address, 5000): "refused"}


@pytest.mark.engine
def test_the_hosts_proxy_and_named_services_stay_within_reach(
    engine: Engine, new_box: Boxes, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, named = Service(), Service()
    try:
        monkeypatch.setenv("http_proxy", f"http://{engine.gateway}:{proxy.port}/")
        box = new_box(settings(engine, f'host_services = "{engine.gateway}:{named.port}"\n')).start()
        found = seen(box, *((engine.gateway, s.port) for s in (proxy, named, service)))
        assert list(found.values()) == ["hi", "hi", "refused"]
    finally:
        proxy.close()
        named.close()


@pytest.mark.engine
async def test_each_paasd_has_rules_of_its_own_for_the_builds(engine: Engine, tmp_path: Path) -> None:
    client = DockerEngine(f"unix://{engine.socket}")
    one, two = (
        Firewall(
            Config(data_dir=tmp_path, label=f"pn{secrets.token_hex(3)}"),
            BuildNetwork(BuildConfig(), client).subnets_and_services,
        )
        for _ in range(2)
    )
    labels = [firewall._config.label for firewall in (one, two)]
    subnet = f"{engine.gateway.rpartition('.')[0]}.0/24"
    try:
        assert await one.apply([], []) and await two.apply([], [])
        assert not await one.apply([], []), "took its rules for changed"
        for label in labels:
            assert any(f"-s {subnet} " in line and "169.254.0.0/16" in line for line in rules(label)), label
        await one.remove()
        assert rules(labels[0]) == []
        assert any(f"-s {subnet} " in line for line in rules(labels[1])), "went with the other's"
    finally:
        await one.remove()
        await two.remove()
        await client.close()


def test_proxies_of_the_environment_and_of_apt() -> None:
    apt = 'Acquire::http::Proxy "http://10.0.0.5:3142";\nAcquire::https::Proxy::mirror "DIRECT";\nDir "/";\n'
    environment = {"HTTPS_PROXY": "http://user:word@proxy.example:8080/", "all_proxy": "10.0.0.6", "no_proxy": "x:1"}
    assert proxies(environment, apt) == [("proxy.example", 8080), ("10.0.0.6", 80), ("10.0.0.5", 3142)]


def test_services_must_be_addresses_and_ports() -> None:
    assert parse_services(" 10.0.0.5:80  172.17.0.1:3128") == [Endpoint("10.0.0.5", 80), Endpoint("172.17.0.1", 3128)]
    for wrong in ("10.0.0.5", "localhost:80", "10.0.0.5:http", "10.0.0.5:80; -j ACCEPT"):
        with pytest.raises(InvalidInput, match="host_services"):
            parse_services(wrong)
