"""Twenty deployments of an app under keep-alive load, with slow requests, WebSockets and slow uploads in flight at
every switch. Counts what failed: wrk's errors, and each request, socket and upload that did not get what it was owed.

A WebSocket lives for a while, echoes all the time, and closes by itself within the drain time of the release it began
on; it must not be cut before."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
from _common import Box, machine, ok, started_box, verdict

from paasd.route.control import ControlSocket, parse_counters
from tests.apps import DOCKERFILE
from tests.box import Repository

APP = "bench"
DEPLOYS = 20
REQUESTS = 100_000
SLOW, SOCKETS, UPLOADS = 4, 4, 2
SOCKET_LIFE = 12.0
UPLOAD = os.urandom(256 * 1024)
SOURCE = (Path(__file__).parent / "_loaded_app.py").read_text()


class Traffic:
    """Loops that each keep one thing in flight until told to stop."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.least: dict[str, int] = {}
        """The fewest of each kind that were in flight when a deployment began."""
        self._in_flight: Counter[str] = Counter()
        self._stop = False

    async def run(self) -> None:
        loops = [(self._slow, "slow requests")] * SLOW + [(self._socket, "WebSockets")] * SOCKETS
        loops += [(self._upload, "uploads")] * UPLOADS
        await asyncio.gather(*(self._repeat(kind, work, n / len(loops)) for n, (work, kind) in enumerate(loops)))

    def stop(self) -> None:
        """Let what is in flight finish; `run` returns then."""
        self._stop = True

    def note_in_flight(self) -> None:
        self.least = {kind: min(count, self.least.get(kind, count)) for kind, count in self._in_flight.items()}

    async def _repeat(self, kind: str, work: Callable[[], Awaitable[None]], offset: float) -> None:
        await asyncio.sleep(offset * 4)  # so that they do not march in step
        while not self._stop:
            self._in_flight[kind] += 1
            started = time.monotonic()
            try:
                await work()
                self.done[kind] += 1
            except (aiohttp.ClientError, OSError, TimeoutError, AssertionError) as error:
                after = time.monotonic() - started
                self.failures.append(f"{kind}: after {after:.1f} s: {type(error).__name__} {error}")
                await asyncio.sleep(0.2)
            finally:
                self._in_flight[kind] -= 1

    async def _slow(self) -> None:
        async with self._session.get(f"{self._base}/slow") as response:
            assert response.status == 200 and "revision" in await response.text(), f"status {response.status}"

    async def _socket(self) -> None:
        deadline = time.monotonic() + SOCKET_LIFE
        async with self._session.ws_connect(f"{self._base}/echo") as socket:
            number = 0
            while time.monotonic() < deadline:
                number += 1
                await socket.send_str(f"message {number}")
                message = await socket.receive(timeout=10)
                assert message.data == f"message {number}", f"got {message} instead of message {number}"
                await asyncio.sleep(0.1)

    async def _upload(self) -> None:
        async def slowly() -> AsyncIterator[bytes]:
            for start in range(0, len(UPLOAD), 8192):
                yield UPLOAD[start : start + 8192]
                await asyncio.sleep(0.12)

        headers = {"Content-Length": str(len(UPLOAD))}
        async with self._session.post(f"{self._base}/upload", data=slowly(), headers=headers) as response:
            digest = hashlib.sha256(UPLOAD).hexdigest()
            assert response.status == 200 and await response.text() == digest, f"status {response.status}"


class Wrk:
    """Keep-alive load from start to `finish`."""

    def __init__(self, port: int) -> None:
        command = ["wrk", "-t1", "-c16", "-d3600s", "--timeout", "10s", "--latency", "-H", f"Host: {APP}.localhost"]
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [*command, f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def seconds_to(self, wanted: int, so_far: int) -> float:
        """How long it will still take at the present rate, and a little more."""
        return 1.05 * (time.monotonic() - self._started) * (wanted - so_far) / so_far + 1

    def finish(self) -> tuple[int, int, str]:
        """Requests, failures, and what wrk says of them."""
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=30)
        answered = re.search(r"(\d+) requests in", text)
        if answered is None:
            raise SystemExit(f"wrk did not count:\n{text}")
        errors = [line.strip() for line in text.splitlines() if "Non-2xx" in line or "Socket errors" in line]
        failed = sum(int(number) for line in errors for number in re.findall(r"(?<![\w-])\d+", line))
        latency = re.search(r"99%\s+(\S+)", text)
        rate = int(answered[1]) / (time.monotonic() - self._started)
        errors.append(f"{rate:.0f} requests/s, 99 % within {latency[1] if latency else '?'}")
        return int(answered[1]), failed, "; ".join(errors)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


def change(repository: Repository, number: int) -> None:
    repository.commit({"app.py": SOURCE.replace("REVISION", str(number))})


def deploy(box: Box, repository: Repository, number: int) -> str:
    """One of the ways to a new set of instances; most are pushes."""
    if number % 5 == 1:
        ok(box.ssh("config:set", APP, f"NUMBER={number}"))
        return "config:set"
    if number % 5 == 3:
        command = "ps:restart" if number % 2 else "rollback"
        ok(box.ssh(command, APP))
        return command
    change(repository, number)
    ok(box.push(repository, APP))
    return "push"


async def deployments(
    box: Box, repository: Repository, traffic: Traffic, count: int
) -> tuple[Counter[str], list[float]]:
    kinds: Counter[str] = Counter()
    seconds = []
    for number in range(1, count + 1):
        await asyncio.sleep(1)
        traffic.note_in_flight()
        started = time.monotonic()
        kinds[await asyncio.to_thread(deploy, box, repository, number)] += 1
        seconds.append(time.monotonic() - started)
    return kinds, seconds


async def measure(box: Box, count: int, requests: int) -> bool:
    repository = box.repository({"Dockerfile": DOCKERFILE, "Procfile": "web: python3 -u app.py\n"})
    change(repository, 0)
    ok(box.push(repository, APP))
    base = f"http://127.0.0.1:{box.http_port}"
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, headers={"Host": f"{APP}.localhost"}) as session:
        traffic = Traffic(session, base)
        running = asyncio.create_task(traffic.run())
        wrk = Wrk(box.http_port)
        try:
            kinds, seconds = await deployments(box, repository, traffic, count)
            # What began on the last old release ends on it; then as many requests as were promised.
            await asyncio.sleep(SOCKET_LIFE)
            await asyncio.sleep(max(0.0, wrk.seconds_to(requests, await edge_requests(box))))
            answered, failed, text = await asyncio.to_thread(wrk.finish)
            traffic.stop()
            await asyncio.wait_for(running, 60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                wrk.kill()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return report(kinds, seconds, answered, failed, text, traffic, requests)


async def edge_requests(box: Box) -> int:
    """What the edge has counted for the app since its Nginx started."""
    counters = ControlSocket(box.data / "edge" / "control" / "control.sock")
    return parse_counters(await counters.get("counters"))[APP].requests


def report(
    kinds: Counter[str],
    seconds: list[float],
    answered: int,
    failed: int,
    text: str,
    traffic: Traffic,
    requests: int,
) -> bool:
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    print(f"  {sum(kinds.values())} deployments ({listed}), {statistics.median(seconds):.2f} s each (median)")
    print(f"  wrk: {answered} requests, {failed} failed; {text}")
    for kind, done in sorted(traffic.done.items()):
        failures = sum(failure.startswith(kind) for failure in traffic.failures)
        print(f"  {kind}: {done} complete, {failures} failed, {traffic.least[kind]} or more at each deployment")
    for failure in traffic.failures[:20]:
        print(f"    {failure}")
    total = failed + len(traffic.failures)
    enough = verdict(f"{answered} requests (target at least {requests})", answered >= requests)
    return verdict(f"{total} failed (target 0)", total == 0) and enough


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deploys", type=int, default=DEPLOYS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    print(f"{options.deploys} deployments under load ({machine()}):")
    with started_box() as box:
        return asyncio.run(measure(box, options.deploys, options.requests))


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
