"""What passes through the edge, and in which form."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re

import aiohttp
import pytest
from aiohttp import web

from paasd.edge_values import InFlight
from tests.integration.edge.conftest import Bench, until


async def show_headers(request: web.Request) -> web.StreamResponse:
    return web.json_response({name.lower(): value for name, value in request.headers.items()})


async def test_forwarded_headers_come_from_the_real_connection(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(show_headers))
    lies = {
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "bank.test",
        "X-Forwarded-Port": "443",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "Proxy": "evil",
    }
    _, text = await bench.visitor.get(f"{host}:8080", **lies)
    seen = json.loads(text)
    assert seen["host"] == seen["x-forwarded-host"] == f"{host}:8080"
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-port"] == str(bench.visitor.port)
    assert "forwarded" not in seen and "proxy" not in seen
    assert re.fullmatch(r"t=\d+\.\d{3}", seen["x-request-start"])


@pytest.mark.parametrize(("sent", "kept"), [("job-7.a_b", True), ("x" * 129, False), ("a b", False), ("é{}", False)])
async def test_request_id_is_kept_only_if_sane(bench: Bench, sent: str, kept: bool) -> None:
    host = await bench.serve("blog", await bench.apps.start(show_headers))
    _, text = await bench.visitor.get(host, **{"X-Request-Id": sent})
    seen = json.loads(text)["x-request-id"]
    assert (seen == sent) is kept
    assert kept or re.fullmatch(r"[0-9a-f]{32}", seen)


async def test_host_header_cannot_differ_from_the_host_that_was_routed(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(show_headers))
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.visitor.port)
    writer.write(f"GET http://{host}/ HTTP/1.1\r\nHost: victim.test\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert f'"host": "{host}"' in answer and "victim.test" not in answer


async def test_h2c_is_not_upgraded(bench: Bench) -> None:
    host = await bench.serve("blog", await bench.apps.start(show_headers))
    _, text = await bench.visitor.get(host, Upgrade="h2c", Connection="Upgrade, HTTP2-Settings")
    seen = json.loads(text)
    assert "upgrade" not in seen and seen["connection"] == "close"


async def test_websocket_talks_both_ways(bench: Bench) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"echo {message.data}")
        return socket

    endpoint = await bench.apps.start(echo)
    host = await bench.serve("chat", endpoint)
    async with bench.visitor.session.ws_connect(bench.visitor.url(), headers={"Host": host}) as socket:
        for text in ("one", "two"):
            await socket.send_str(text)
            assert await socket.receive_str() == f"echo {text}"
        assert await bench.edge.in_flight() == {str(endpoint): InFlight(streams=1)}
    await bench.in_flight_is({})


@pytest.mark.parametrize("by", ["request", "response"])
async def test_event_stream_passes_unbuffered(bench: Bench, by: str) -> None:
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream"} | ({"X-Accel-Buffering": "no"} if by == "response" else {})
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await go_on.wait()
        await response.write(b"data: last\n\n")
        return response

    host = await bench.serve("ticker", await bench.apps.start(stream))
    headers = {"Host": host} | ({"Accept": "text/html, text/event-stream"} if by == "request" else {})
    async with bench.visitor.session.get(bench.visitor.url(), headers=headers) as response:
        assert await asyncio.wait_for(response.content.readuntil(b"\n\n"), 10) == b"data: first\n\n"
        go_on.set()
        assert await response.content.read() == b"data: last\n\n"


async def test_big_upload_arrives_whole_and_only_up_to_the_limit(bench: Bench) -> None:
    async def digest(request: web.Request) -> web.StreamResponse:
        return web.Response(text=hashlib.sha256(await request.read()).hexdigest())

    host = await bench.serve("store", await bench.apps.start(digest), body_size="20m")
    body = bytes(range(256)) * 4096 * 16
    for size, status in ((len(body), 200), (20 * 1024**2 + 1, 413)):
        sent = (body * 2)[:size]
        async with bench.visitor.session.post(
            bench.visitor.url(), headers={"Host": host}, data=io.BytesIO(sent)
        ) as response:
            assert response.status == status
            if status == 200:
                assert await response.text() == hashlib.sha256(sent).hexdigest()


async def test_slow_upload_does_not_occupy_the_app(bench: Bench) -> None:
    asked = asyncio.Event()

    async def note(request: web.Request) -> web.StreamResponse:
        asked.set()
        return web.Response(text=str(len(await request.read())))

    host = await bench.serve("store", await bench.apps.start(note))
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.visitor.port)
    writer.write(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab".encode())
    await writer.drain()
    assert await bench.edge.in_flight() == {} and not asked.is_set()
    writer.write(b"cd")
    assert (await reader.read()).endswith(b"\r\n4")
    writer.close()


@pytest.mark.parametrize("status", [404, 500, 502, 503])
async def test_the_apps_own_errors_pass_through(bench: Bench, status: int) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="the app's own words")

    host = await bench.serve("blog", await bench.apps.start(fail))
    assert await bench.visitor.get(host) == (status, "the app's own words")


async def test_counters_add_up(bench: Bench) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep({"/slow": 0.03, "/long": 1.05}.get(request.path, 0))
        return web.Response(status=404 if request.path == "/none" else 200, text="x" * 1000)

    host = await bench.serve("blog", await bench.apps.start(answer))
    await bench.serve("quiet")
    paths = ["/"] * 20 + ["/none"] * 5 + ["/slow"] * 2 + ["/long"]
    await asyncio.gather(*(bench.visitor.get(host, path) for path in paths))
    counted = await bench.edge.counters()
    assert counted.keys() == {"blog"}
    blog = counted["blog"]
    assert blog.requests == 28 == sum(blog.latency.values())
    assert blog.statuses == {"1xx": 0, "2xx": 23, "3xx": 0, "4xx": 5, "5xx": 0}
    assert blog.bytes_out > 28 * 1000 and blog.bytes_in > 28 * len("GET / HTTP/1.1")
    assert sum(count for bound, count in blog.latency.items() if bound > 0.025) >= 3
    assert sum(count for bound, count in blog.latency.items() if bound > 1.0) >= 1
    assert blog.seconds >= 1.1


async def test_in_flight_returns_to_zero_whatever_the_clients_do(bench: Bench) -> None:
    hold = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await hold.wait()
        return web.Response(text="done")

    endpoint = await bench.apps.start(wait)
    host = await bench.serve("blog", endpoint)
    asks = [asyncio.create_task(bench.visitor.get(host)) for _ in range(4)]
    gone = asyncio.create_task(bench.visitor.session.get(bench.visitor.url(), headers={"Host": host}))
    await bench.in_flight_is({str(endpoint): InFlight(5)})
    gone.cancel()
    # Some of them are in workers that now retire: their counts must neither vanish nor stay.
    await bench.serve("other")
    await bench.in_flight_is({str(endpoint): InFlight(4)})
    hold.set()
    assert await asyncio.gather(*asks) == [(200, "done")] * 4
    await bench.in_flight_is({})
    assert (await bench.edge.counters())["blog"].requests == 5


async def test_old_websockets_outlive_a_reload_and_stay_counted(bench: Bench) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(str(message.data))
        return socket

    endpoint = await bench.apps.start(echo)
    host = await bench.serve("chat", endpoint)
    async with bench.visitor.session.ws_connect(bench.visitor.url(), headers={"Host": host}) as socket:
        await bench.serve("other")
        await socket.send_str("still here")
        assert await socket.receive_str() == "still here"
        assert await bench.edge.in_flight() == {str(endpoint): InFlight(streams=1)}
    await bench.in_flight_is({})
    assert (await bench.edge.counters())["chat"].statuses["1xx"] == 1


async def test_slow_headers_are_cut_off(bench: Bench) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.visitor.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: blog.te")
    async with asyncio.timeout(40):
        with_reset = await asyncio.gather(reader.read(), return_exceptions=True)
    assert with_reset == [b""] or isinstance(with_reset[0], ConnectionResetError)
    writer.close()


async def test_one_source_cannot_have_every_connection(bench: Bench) -> None:
    hold = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await hold.wait()
        return web.Response(text="done")

    host = await bench.serve("blog", await bench.apps.start(wait))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> int:
            async with session.get(bench.visitor.url(), headers={"Host": host}) as response:
                return response.status

        asks = [asyncio.create_task(ask()) for _ in range(1100)]

        async def surplus_refused() -> bool:
            return sum(task.done() for task in asks) >= 1100 - 1024

        await until(surplus_refused)
        hold.set()
        statuses = await asyncio.gather(*asks)
    assert statuses.count(429) >= 1100 - 1024 and set(statuses) == {200, 429}
