"""The pure parts of the Docker driver: options, frames, socket tables, times."""

from __future__ import annotations

import struct

import pytest

from paasd.drivers.docker import container_options, network_options
from paasd.drivers.docker_containers import epoch
from paasd.drivers.docker_logs import MAX_LINE, LogReader
from paasd.drivers.docker_ports import ports_in
from paasd.models import InstanceSpec, Limits, LogLine, Secret

SPEC = InstanceSpec(
    name="paasd-hello-web-1",
    app_id="a1",
    app="hello",
    release=12,
    process_type="web",
    index=2,
    image="sha256:abc",
    command=("/bin/sh", "-c", "python app.py"),
    env={"PORT": Secret("5000"), "A": Secret("b=c")},
    network="paasd-blog",
    address="10.201.4.7",
    limits=Limits(memory=1024, cpus=0.5, pids=9, memory_reservation=512),
    user="10001:10001",
    stop_timeout=11,
    labels={"extra": "1", "paasd.instance": "someone-else"},
)
INSTANCE_OPTIONS = {
    "Image": "sha256:abc",
    "Entrypoint": ["/bin/sh", "-c", "python app.py"],
    "User": "10001:10001",
    "Env": ["A=b=c", "PORT=5000", "TINI_KILL_PROCESS_GROUP=1"],
    "Labels": {
        "extra": "1",
        "paasd.instance": "box",
        "paasd.app": "a1",
        "paasd.app-name": "hello",
        "paasd.release": "12",
        "paasd.type": "web",
        "paasd.index": "2",
        "paasd.role": "instance",
    },
    "StopTimeout": 11,
    "Healthcheck": {"Test": ["NONE"]},
    "HostConfig": {
        "NetworkMode": "paasd-blog",
        "RestartPolicy": {"Name": "unless-stopped"},
        "Init": True,
        "Privileged": False,
        "PublishAllPorts": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": 9,
        "Memory": 1024,
        "MemorySwap": 1024,
        "MemoryReservation": 512,
        "NanoCpus": 500_000_000,
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
        "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
    },
    "NetworkingConfig": {"EndpointsConfig": {"paasd-blog": {"IPAMConfig": {"IPv4Address": "10.201.4.7"}}}},
}


def test_an_instance_gets_the_hardened_defaults() -> None:
    assert container_options(SPEC, "box") == INSTANCE_OPTIONS


def test_a_one_off_is_not_restarted_and_keeps_its_input() -> None:
    options = container_options(SPEC, "box", one_off=True, tty=True, stdin=True)
    changed = {key: value for key, value in options.items() if INSTANCE_OPTIONS.get(key) != value}
    assert changed == {
        "Labels": INSTANCE_OPTIONS["Labels"] | {"paasd.role": "one-off"},
        "HostConfig": INSTANCE_OPTIONS["HostConfig"] | {"RestartPolicy": {"Name": "no"}},
        "Tty": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
    }


def test_an_image_without_a_command_keeps_its_own() -> None:
    spec = InstanceSpec(**(vars(SPEC) | {"command": None, "user": None, "address": None}))
    options = container_options(spec, "box")
    assert "Entrypoint" not in options and "User" not in options
    assert "Cmd" not in options
    assert options["NetworkingConfig"] == {"EndpointsConfig": {"paasd-blog": {}}}


def test_an_image_without_a_command_runs_what_it_says() -> None:
    options = container_options(InstanceSpec(**(vars(SPEC) | {"command": None})), "box")
    assert "Entrypoint" not in options and "Cmd" not in options


def test_a_network_keeps_its_last_quarter_for_one_offs() -> None:
    assert network_options("paasd-blog", "10.201.4.0/24", "box") == {
        "Name": "paasd-blog",
        "Driver": "bridge",
        "CheckDuplicate": True,
        "IPAM": {
            "Driver": "default",
            "Config": [{"Subnet": "10.201.4.0/24", "Gateway": "10.201.4.1", "IPRange": "10.201.4.192/26"}],
        },
        "Labels": {"paasd.instance": "box"},
    }


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-01-02T03:04:05.000000006Z", (1767323045.000000006, "1767323045.000000006")),
        ("2026-01-02T03:04:05.5Z", (1767323045.5, "1767323045.500000000")),
        ("2026-01-02T03:04:05Z", (1767323045.0, "1767323045.000000000")),
        ("0001-01-01T00:00:00Z", (0.0, "0")),
    ],
)
def test_times_of_the_engine_are_understood(timestamp: str, expected: tuple[float, str]) -> None:
    assert epoch(timestamp) == expected


def frame(stream: int, text: bytes, second: int = 5) -> bytes:
    message = b"2026-01-02T03:04:%02d.000000000Z " % second + text
    return struct.pack(">BxxxL", stream, len(message)) + message


@pytest.mark.parametrize("size", [1, 7, 8, 9, 10_000])
def test_frames_become_lines_however_they_are_cut(size: int) -> None:
    data = frame(1, b"out\r\n") + frame(2, b"err \xff\n", 6) + frame(1, b"no end", 7)
    reader = LogReader("web.1")
    lines = [line for at in range(0, len(data), size) for line in reader.feed(data[at : at + size])]
    assert [*lines, *reader.flush()] == [
        LogLine(1767323045.0, "web.1", "out"),
        LogLine(1767323046.0, "web.1", "err \\xff", stderr=True),
        LogLine(1767323047.0, "web.1", "no end"),
    ]
    assert reader.last == "1767323047.000000000"


@pytest.mark.parametrize("end", [b"c\n", b"c"])
def test_a_line_in_several_messages_is_one_line_and_is_cut(end: bytes) -> None:
    reader = LogReader("web.1")
    part = b"a" * MAX_LINE
    data = frame(1, part) + frame(2, b"between\n") + frame(1, part) + frame(1, end) + frame(1, b"next\n", 6)
    lines = list(reader.feed(data))
    assert [line.text for line in lines] == ["between", "a" * MAX_LINE, "next"]


def test_a_line_that_just_fills_its_parts_ends_with_the_next_one() -> None:
    reader = LogReader("web.1")
    lines = list(reader.feed(frame(1, b"a" * MAX_LINE) + frame(1, b"next\n", 6)))
    assert [(line.text, line.at) for line in lines] == [("a" * MAX_LINE, 1767323045.0), ("next", 1767323046.0)]


def test_listening_sockets_are_told_from_others() -> None:
    tables = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:A4F1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:1388 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 4
   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 5
"""
    assert ports_in(tables) == [80, 3000]
