"""`ssh -L` and `ps:forward` to the port of an app, by the real client, and everything else refused."""

from __future__ import annotations

import http.client
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.apps import app
from tests.box import Box, docker, eventually
from tests.ports import free_port

pytestmark = pytest.mark.engine

_PORT = 5000


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box("[run]\ndrain = 0.5\nstream_drain = 0.5\nstop_timeout = 2\n").start()
    done = box.push(box.repository(app(body="inside")), "blog")
    assert done.status == 0, done.all
    assert box.ssh("ps:scale", "blog", "web=2").status == 0
    yield box
    box.close()


def command(box: Box, *options: str, key: Path | None = None) -> list[str]:
    words = [word.replace("LogLevel=ERROR", "LogLevel=INFO") for word in box.ssh_command(key)]
    return [*words, "-p", str(box.ssh_port), *options, f"{box.user}@127.0.0.1"]


@contextmanager
def forwarding(box: Box, option: str, target: str, key: Path | None = None) -> Iterator[tuple[int, Callable[[], str]]]:
    """The port on this side, and what ssh has said."""
    port, said = free_port(), box.root / "said"
    with said.open("wb") as log:
        words = command(box, "-N", option, f"127.0.0.1:{port}{target}", key=key)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or _listens(port))
        yield port, lambda: said.read_text()
    finally:
        process.kill()  # a signal that comes just before it waits for its connections is lost on ssh
        process.wait(20)


def _listens(port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def get(port: int) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""


@pytest.mark.parametrize("host", ["blog", "blog.web", "blog.web.2"])
def test_the_port_of_an_app_is_reached(box: Box, host: str) -> None:
    with forwarding(box, "-L", f":{host}:{_PORT}") as (port, _):
        assert [get(port) for _ in range(3)] == ["inside"] * 3
        done = subprocess.run(["curl", "-s", f"http://127.0.0.1:{port}/"], capture_output=True, timeout=20, check=False)
        assert done.stdout in (b"inside", b""), done  # b"" where there is no curl
    event = box.json("events", "blog")[-1]
    assert event["type"] == "app.forwarded" and event["data"]["instance"] == ("web.2" if "2" in host else "web.1")


def address_of_instance(box: Box) -> str:
    networks = docker("GET", f"/containers/{box.containers()[0]['Id']}/json")["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("blog:22", "the port of blog is 5000, and no other is forwarded"),
        ("127.0.0.1:{ssh}", "connections go to apps only"),
        ("localhost:{http}", "connections go to apps only"),
        ("169.254.169.254:80", "connections go to apps only"),
        ("{instance}:5000", "connections go to apps only"),
        ("blog.worker.1:5000", "blog has no live instance 'worker.1'"),
        ("other:5000", "there is no app 'other'"),
    ],
)
def test_everything_else_is_refused_and_says_why(box: Box, target: str, said: str) -> None:
    place = target.format(ssh=box.ssh_port, http=box.http_port, instance=address_of_instance(box))
    with forwarding(box, "-L", f":{place}") as (port, log):
        assert get(port) == ""
        eventually(lambda: "open failed" in log())
        assert "administratively prohibited" in log() and said in log(), log()


def test_no_remote_forwarding_and_dynamic_only_to_apps(box: Box) -> None:
    words = command(box, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22")
    done = subprocess.run(words, capture_output=True, timeout=30, check=False)
    assert done.returncode == 255 and b"remote port forwarding failed" in done.stderr, done
    with forwarding(box, "-D", "") as (port, log):
        for host in ("127.0.0.1", "169.254.169.254"):
            assert not socks(port, host, box.http_port)
        eventually(lambda: log().count("administratively prohibited") == 2)
        assert socks(port, "blog", _PORT)


def socks(proxy: int, host: str, port: int) -> bool:
    """Whether a SOCKS proxy (RFC 1928) connects to a host."""
    import socket

    with socket.create_connection(("127.0.0.1", proxy), 20) as connection:
        connection.sendall(b"\5\1\0")
        assert connection.recv(2) == b"\5\0"
        connection.sendall(b"\5\1\0\3" + bytes([len(host)]) + host.encode() + port.to_bytes(2))
        return connection.recv(10)[1:2] == b"\0"


def test_another_tenants_app_does_not_exist_and_viewers_may_not(box: Box) -> None:
    keys = {role: box.new_key(role) for role in ("stranger", "viewer")}
    for name, key in keys.items():
        assert box.ssh("keys:add", name, stdin=key.with_suffix(".pub").read_text()).status == 0
    with closing(sqlite3.connect(box.data / "state.db", timeout=20)) as database, database:
        (home,) = database.execute("SELECT id FROM organizations").fetchone()
        database.execute("INSERT INTO organizations VALUES ('elsewhere', 'elsewhere', 0)")
        for name, organization, role in (("stranger", "elsewhere", "owner"), ("viewer", home, "viewer")):
            database.execute("INSERT INTO users VALUES (?, ?, 0)", (name, name))
            database.execute("INSERT INTO memberships VALUES (?, ?, ?)", (organization, name, role))
            values = (organization, name, name)
            database.execute("UPDATE ssh_keys SET organization_id = ?, user_id = ? WHERE name = ?", values)
    for name, said in (
        ("stranger", "there is no app 'blog'"),
        ("viewer", "role viewer, which does not include app:run"),
    ):
        with forwarding(box, "-L", f":blog:{_PORT}", key=keys[name]) as (port, log):
            assert get(port) == ""
            eventually(lambda log=log: "open failed" in log())
            assert "administratively prohibited" in log() and said in log(), log()
        assert box.ssh("ps:forward", "blog", key=keys[name]).status == 1


def test_a_command_does_the_same_for_programs(box: Box) -> None:
    request = "GET / HTTP/1.0\r\n\r\n"
    for words in ((), ("web.2",), ("web", str(_PORT)), (str(_PORT),)):
        done = box.ssh("ps:forward", "blog", *words, stdin=request)
        assert done.status == 0 and done.out.endswith("inside"), (words, done)
    refused = box.ssh("ps:forward", "blog", "22")
    assert refused.status == 1 and "the port of blog is 5000" in refused.err
    assert box.ssh("ps:stop", "blog").status == 0
    refused = box.ssh("ps:forward", "blog", stdin=request)
    assert refused.status == 1 and "nothing of blog runs" in refused.err
    box.settles()
