"""Calls of gRPC through the edge, with the real client and server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from paasd.edge_values import Endpoint, InFlight, Route
from paasd.models import Secret
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import Bench
from tests.tls import Authority

POLICY = json.dumps({"grpc": True})


class Calls(grpc.GenericRpcHandler):
    """One call of each shape; bytes in, bytes out."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        self.metadata = {name: value for name, value in details.invocation_metadata}
        return {
            "/t.T/Shout": grpc.unary_unary_rpc_method_handler(self.shout),
            "/t.T/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/t.T/Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "/t.T/Echo": grpc.stream_stream_rpc_method_handler(self.echo),
        }.get(details.method)

    async def shout(self, said: bytes, context: Any) -> bytes:
        if said == b"bad":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing bad")
        return said.upper()

    async def count(self, to: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(to)):
            yield str(number).encode()

    async def sum(self, numbers: AsyncIterator[bytes], context: Any) -> bytes:
        return str(sum([int(number) async for number in numbers])).encode()

    async def echo(self, pieces: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield piece


@pytest.fixture
async def calls() -> AsyncIterator[tuple[Calls, Endpoint]]:
    server, handler = grpc.aio.server(), Calls()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield handler, Endpoint("127.0.0.1", port)
    await server.stop(0)


@pytest.fixture
async def channel(bench: Bench, calls: tuple[Calls, Endpoint]) -> AsyncIterator[grpc.aio.Channel]:
    authority = Authority.new()
    await bench.serve("blog", calls[1], policy=POLICY)
    key, chain = authority.leaf(("blog.test",))
    await bench.edge.tls.put(Served("one", ("blog.test",), Secret(key + chain), "1.3"))
    credentials = grpc.ssl_channel_credentials(authority.pem.encode())
    options = [("grpc.ssl_target_name_override", "blog.test"), ("grpc.default_authority", "blog.test")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{bench.http.https_port}", credentials, options) as channel:
        yield channel


async def test_calls_of_all_shapes(channel: grpc.aio.Channel, calls: tuple[Calls, Endpoint]) -> None:
    assert await channel.unary_unary("/t.T/Shout")(b"hello" * 100_000, timeout=20) == b"HELLO" * 100_000
    assert calls[0].metadata["x-forwarded-proto"] == "https" and calls[0].metadata["x-real-ip"] == "127.0.0.1"
    assert [piece async for piece in channel.unary_stream("/t.T/Count")(b"100", timeout=20)] == [
        str(number).encode() for number in range(100)
    ]
    assert await channel.stream_unary("/t.T/Sum")(iter([b"1", b"2", b"39"]), timeout=20) == b"42"


async def test_both_sides_speak_at_once_and_it_counts_as_a_stream(bench: Bench, channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/t.T/Echo")(timeout=30)
    for word in (b"one", b"two", b"three"):
        await call.write(word)
        assert await call.read() == word
    (seen,) = (await bench.edge.in_flight()).values()
    assert seen == InFlight(0, 1)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF and await call.code() == grpc.StatusCode.OK
    await bench.in_flight_is({})


async def test_errors_of_the_app_and_of_the_edge(bench: Bench, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary("/t.T/Shout")(b"bad", timeout=20)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "nothing bad")
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await channel.unary_unary("/t.T/Nothing")(b"", timeout=20)
    assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
    await bench.edge.set_route(Route("blog", (), 1))
    with pytest.raises(grpc.aio.AioRpcError) as nobody:
        await channel.unary_unary("/t.T/Shout")(b"x", timeout=20)
    assert nobody.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_what_is_no_call_goes_to_the_app_as_usual(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.saying("a page"), policy=POLICY)
    for kind in ("text/plain", "application/grpc-web+proto"):
        assert await bench.visitor.get(host, **{"Content-Type": kind}) == (200, "a page")


async def test_other_rules_hold_for_calls(
    bench: Bench, channel: grpc.aio.Channel, calls: tuple[Calls, Endpoint]
) -> None:
    closed = json.dumps({"grpc": True, "addresses": {"deny": ["127.0.0.1/32"]}})
    await bench.serve("blog", calls[1], policy=closed)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary("/t.T/Shout")(b"x", timeout=20)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_calls_go_on_while_the_endpoint_changes(bench: Bench, channel: grpc.aio.Channel) -> None:
    other, handler = grpc.aio.server(), Calls()
    other.add_generic_rpc_handlers((handler,))
    port = other.add_insecure_port("127.0.0.1:0")
    await other.start()
    try:
        call = channel.stream_stream("/t.T/Echo")(timeout=30)
        await call.write(b"one")
        assert await call.read() == b"one"
        await bench.edge.set_route(Route("blog", (Endpoint("127.0.0.1", port),), 2))
        await call.write(b"two")
        assert await call.read() == b"two"
        assert await channel.unary_unary("/t.T/Shout")(b"x", timeout=20) == b"X" and handler.metadata
        await call.done_writing()
        assert await asyncio.wait_for(call.code(), 20) == grpc.StatusCode.OK
    finally:
        await other.stop(0)
