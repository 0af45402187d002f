"""The part of `bench edge` about TLS: full handshakes with a certificate out of the shared dictionary, against the same
Nginx with the same certificate in files."""

from __future__ import annotations

import asyncio
import socket
import ssl
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paasd.edge_values import Site
from paasd.models import Secret
from paasd.route.edge import Edge
from paasd.route.edge_tls import Served
from paasd.route.keys import new_key
from paasd.route.pem import key_pem

TARGET = 0.95
_THREADS = 2
_SECONDS = 0.4
STATIC_SITE = """
server {{
    listen 127.0.0.1:{port} ssl http2;
    server_name shake-file.localhost;
    ssl_certificate "{pem}";
    ssl_certificate_key "{pem}";
    location / {{ return 204; }}
}}
"""


async def prepare(edge: Edge, directory: Path, port: int) -> None:
    """A name whose certificate comes out of the shared dictionary, and one whose certificate is in a file; both take
    effect with the next reload."""
    pem = directory / "static.pem"
    key, chain = certificate(["shake-lua.localhost", "shake-file.localhost"])
    pem.write_text(key + chain)
    await edge.set_site(Site("shake-lua", ("shake-lua.localhost",)))
    (directory / "edge" / "sites" / "shake-file.conf").write_text(STATIC_SITE.format(port=port, pem=pem))
    await edge.tls.put(Served("bench", ("shake-lua.localhost",), Secret(key + chain)))


async def measure(port: int, rounds: int, cpu: Callable[[], float]) -> bool:
    """Many short rounds: what else the machine does then disturbs both alike."""
    results: dict[str, list[tuple[float, float]]] = {"shake-lua": [], "shake-file": []}
    for number in range(rounds + 1):
        for name in sorted(results, reverse=bool(number % 2)):
            before = cpu()
            done = await asyncio.to_thread(_load, port, f"{name}.localhost", _SECONDS)
            if number:  # the first round is for warming up
                results[name].append((done / _SECONDS, (cpu() - before) / done * 1e6))
    for name, title in (("shake-lua", "ours"), ("shake-file", "certificate in a file")):
        rate, used = (statistics.median(values) for values in zip(*results[name], strict=True))
        print(f"TLS {title:<22} {rate:>8.0f} handshakes/s {used:>7.1f} µs CPU a handshake")
    pairs = list(zip(results["shake-lua"], results["shake-file"], strict=True))
    by_rate = statistics.median(ours[0] / other[0] for ours, other in pairs)
    by_cpu = statistics.median(other[1] / ours[1] for ours, other in pairs)
    print(f"TLS against a file: handshakes/s {by_rate:.3f} (target >= {TARGET}), handshakes per CPU {by_cpu:.3f}")
    return by_rate >= TARGET


def _load(port: int, host: str, seconds: float) -> int:
    """Full handshakes that were made; a session is never taken up again."""
    deadline = time.monotonic() + seconds

    def shake() -> int:
        context, done = ssl._create_unverified_context(), 0
        while time.monotonic() < deadline:
            with socket.create_connection(("127.0.0.1", port), 10) as plain:
                context.wrap_socket(plain, server_hostname=host).close()
            done += 1
        return done

    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(future.result() for future in [pool.submit(shake) for _ in range(_THREADS)])


def certificate(names: list[str]) -> tuple[str, str]:
    from tests.tls import Authority

    key = new_key("ecdsa")
    return key_pem(key), Authority.new().leaf(names, key=key)[1]
