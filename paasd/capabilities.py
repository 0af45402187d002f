"""Ambient capabilities (capabilities(7)): an unprivileged daemon gets CAP_NET_ADMIN for the firewall and keeps it from
every other program it starts, Nginx and Git above all."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NET_ADMIN, _NET_RAW = 12, 13
_PR_CAP_AMBIENT, _RAISE, _LOWER = 47, 2, 3


def lower_network_admin() -> None:
    """Of the calling thread and the threads and programs it starts from now on. Call before the first thread starts."""
    if os.geteuid() != 0:
        for capability in (_NET_ADMIN, _NET_RAW):
            _ambient(_LOWER, capability)


@contextmanager
def network_admin() -> Iterator[None]:
    """Programs that the calling thread starts inside the block may change the firewall, if the daemon may."""
    if os.geteuid() == 0:
        yield
        return
    for capability in (_NET_ADMIN, _NET_RAW):
        _ambient(_RAISE, capability)
    try:
        yield
    finally:
        lower_network_admin()


def has_network_admin(pid: int | str = "self") -> bool:
    """Whether the process may change the firewall."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapPrm":
            return bool(int(value, 16) & 1 << _NET_ADMIN)
    return False


def _ambient(change: int, capability: int) -> None:
    # Fails only when the capability is not there to be raised; iptables then says so itself.
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(change), ctypes.c_ulong(capability), zero, zero)
