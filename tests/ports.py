"""Port numbers for tests: each is given out once, and none is one that the kernel may give to a connection."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from pathlib import Path

_FIRST = 20_000
"""Below it are ports that programs have as their own."""


class Ports:
    """Hands out `numbers` in turn, from a random one on, so that runs of the tests side by side seldom meet."""

    def __init__(self, numbers: Sequence[int]) -> None:
        start = random.randrange(len(numbers)) if numbers else 0
        self._left = [*numbers[start:], *numbers[:start]][::-1]
        self._asked = f"{len(numbers)} ports from {min(numbers)} to {max(numbers)}" if numbers else "no ports"

    def free(self) -> int:
        while self._left:
            if _is_free(number := self._left.pop()):
                return number
        raise RuntimeError(f"no port is left: there were {self._asked}, and each was given out or is taken")


def ephemeral() -> range:
    """What the kernel takes for connections, and for who binds port 0."""
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return range(int(first), int(last) + 1)


def _is_free(number: int) -> bool:
    """Nobody has it at any address, for TCP or for UDP."""
    places = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0")]
    if Path("/proc/net/if_inet6").exists():
        places.append((socket.AF_INET6, "::"))
    try:
        for family, address in places:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(family, kind) as probe:
                    probe.bind((address, number))
    except OSError:
        return False
    return True


free_port = Ports(sorted({*range(_FIRST, 65_536)} - {*ephemeral()})).free
