"""The trace that requests belong to: passed if there is one, begun if not."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.integration.edge.conftest import Bench
from tests.integration.edge.policies import set_policy
from tests.integration.edge.raw import exchange

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"
MADE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(head), head))
    await writer.drain()


async def got(bench: Bench, *headers: str) -> dict[str, list[str]]:
    """Headers that the app gets, by their names in lower case."""
    head = "".join(f"{header}\r\n" for header in ("Host: blog.test", *headers))
    answer = await exchange(bench.http.port, f"GET / HTTP/1.1\r\n{head}\r\n".encode())
    found: dict[str, list[str]] = {}
    for line in answer.partition(b"\r\n\r\n")[2].decode().splitlines()[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.mark.parametrize("given", [GOOD, f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-what-the-future-is-like"])
async def test_a_trace_is_passed(bench: Bench, given: str) -> None:
    await bench.serve("blog", await bench.apps.raw(tell))
    await set_policy(bench, "blog", traceparent="on")
    found = await got(bench, f"Traceparent: {given}", "tracestate: a=b")
    assert (found["traceparent"], found["tracestate"]) == ([given], ["a=b"])
    assert (await got(bench, f"traceparent: {given}", "traceparent: x"))["traceparent"] == [given]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        GOOD.upper(),
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"{GOOD}-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{TRACE}a-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0",
        GOOD + "-" + "x" * 600,
        f"{GOOD}\t{GOOD}",
    ],
)
async def test_what_is_no_trace_begins_one(bench: Bench, given: str) -> None:
    await bench.serve("blog", await bench.apps.raw(tell))
    await set_policy(bench, "blog", traceparent="on")
    made = set()
    for _ in range(3):
        found = await got(bench, f"traceparent: {given}", "tracestate: a=b")
        assert len(found["traceparent"]) == 1 and MADE.fullmatch(found["traceparent"][0])
        assert "tracestate" not in found
        assert found["x-request-id"] == [found["traceparent"][0].split("-")[1]]
        made |= {*found["traceparent"]}
    assert len(made) == 3


async def test_without_the_setting_nothing_is_touched(bench: Bench) -> None:
    await bench.serve("blog", await bench.apps.raw(tell))
    assert "traceparent" not in await got(bench)
    assert (await got(bench, "traceparent: x", "tracestate: a=b"))["traceparent"] == ["x"]
    await set_policy(bench, "blog", traceparent="unsampled")
    assert (await got(bench))["traceparent"][0].endswith("-00")
