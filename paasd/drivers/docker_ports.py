"""Which TCP ports a container listens on, read from the kernel's socket tables."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"
_ENGINE_DNS = "0B00007F"  # 127.0.0.11: the engine's own name server inside the container


def host_ports(pid: int) -> list[int]:
    """Ports of the process's network namespace. Raises OSError when its /proc entry cannot be read."""
    tables = [Path(f"/proc/{pid}/net/{table}") for table in ("tcp", "tcp6")]
    return ports_in("".join(table.read_text() for table in tables if table.exists() or table.name == "tcp"))


def ports_in(tables: str) -> list[int]:
    """Ports in the text of /proc/net/tcp and tcp6, sorted."""
    ports = set()
    for line in tables.splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        if address != _ENGINE_DNS:
            ports.add(int(port, 16))
    return sorted(ports)
