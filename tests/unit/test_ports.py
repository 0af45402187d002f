"""The ports that tests get."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.ports import Ports, ephemeral, free_port


def test_no_port_is_given_out_twice_and_none_is_one_of_the_kernel() -> None:
    given = [free_port() for _ in range(300)]
    assert len(set(given)) == 300
    assert not set(given) & set(ephemeral())
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in ephemeral(), "the kernel takes others than it says"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
)
def test_a_taken_port_is_passed_over(kind: socket.SocketKind, family: socket.AddressFamily, address: str) -> None:
    if family is socket.AF_INET6 and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    taken, free = free_port(), free_port()
    with socket.socket(family, kind) as holder:
        holder.bind((address, taken))
        if kind is socket.SOCK_STREAM:
            holder.listen()
        ports = Ports([taken, free])
        assert ports.free() == free
        with pytest.raises(RuntimeError, match=f"no port is left: there were 2 ports from {min(taken, free)}"):
            ports.free()


def test_none_left_is_said() -> None:
    with pytest.raises(RuntimeError, match="there were no ports"):
        Ports([]).free()


def test_runs_side_by_side_begin_at_different_ports() -> None:
    assert len({Ports(range(20_000, 30_000)).free() for _ in range(20)}) > 10
