"""The engine's door, against a small HTTP server of our own on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from paasd.docker_engine import DockerEngine, negotiated
from paasd.errors import EngineConflict, EngineError, EngineNotFound, EngineUnavailable

Serve = Callable[[str], Awaitable[DockerEngine]]


async def answer(request: web.Request) -> web.StreamResponse:
    status = int(request.query.get("status", "200"))
    if status != 200:
        return web.json_response({"message": "no such thing"}, status=status)
    return web.json_response({"query": dict(request.query), "body": (await request.read()).decode()})


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def lines(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    if "break" in request.query:
        assert request.transport is not None
        request.transport.abort()
        return response
    for piece in (b'{"a": 1}\n{"b"', b": 2}\n\n", b'{"c": 3}'):
        await response.write(piece)
    if "hang" in request.query:
        await asyncio.sleep(60)
    return response


@pytest.fixture
def hung() -> asyncio.Event:
    """Set, the engine answers pings no more."""
    return asyncio.Event()


@pytest.fixture
async def serve(tmp_path: Path, hung: asyncio.Event) -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []
    engines: list[DockerEngine] = []

    async def start(api_version: str = "1.45") -> DockerEngine:
        async def version(request: web.Request) -> web.Response:
            return web.json_response({"ApiVersion": api_version})

        webapp = web.Application()

        async def ping(request: web.Request) -> web.Response:
            await asyncio.sleep(60 if hung.is_set() else 0)
            return web.Response(text="OK")

        webapp.router.add_get("/version", version)
        webapp.router.add_get("/_ping", ping)
        webapp.router.add_route("*", "/v1.45/answer", answer)
        webapp.router.add_get("/v1.45/hang", hang)
        webapp.router.add_get("/v1.45/lines", lines)
        runner = web.AppRunner(webapp, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
        runners.append(runner)
        engines.append(DockerEngine(f"unix://{tmp_path}/engine.sock"))
        return engines[-1]

    yield start
    for engine in engines:
        await engine.close()
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("offered", "spoken"), [("1.41", "v1.41"), ("1.45", "v1.45"), ("1.99", "v1.51"), ("2.0", "v1.51")]
)
def test_speaks_the_engines_version_up_to_the_newest_known(offered: str, spoken: str) -> None:
    assert negotiated(offered) == spoken


@pytest.mark.parametrize("offered", ["1.40", "0.1", "", "one"])
def test_refuses_an_engine_that_is_too_old(offered: str) -> None:
    with pytest.raises(EngineUnavailable):
        negotiated(offered)


async def test_an_old_engine_is_named_in_the_error(serve: Serve) -> None:
    engine = await serve("1.40")
    with pytest.raises(EngineUnavailable, match=r"speaks API 1\.40, paasd needs 1\.41"):
        await engine.request("GET", "/answer")


async def test_parameters_are_encoded_for_the_engine(serve: Serve) -> None:
    engine = await serve("1.45")
    params = {"all": True, "quiet": False, "filters": {"label": ["a=b"]}, "n": 3, "name": "a b&c", "left": None}
    result = await engine.request("POST", "/answer", params=params, json={"x": 1})
    assert result == {
        "query": {"all": "1", "quiet": "0", "filters": '{"label": ["a=b"]}', "n": "3", "name": "a b&c"},
        "body": '{"x": 1}',
    }


@pytest.mark.parametrize(("status", "kind"), [(404, EngineNotFound), (409, EngineConflict), (500, EngineError)])
async def test_refusals_carry_the_engines_words(serve: Serve, status: int, kind: type[EngineError]) -> None:
    engine = await serve("1.45")
    with pytest.raises(EngineError, match="no such thing") as caught:
        await engine.request("GET", "/answer", params={"status": status})
    assert type(caught.value) is kind


async def test_a_silent_engine_is_unavailable(serve: Serve) -> None:
    engine = await serve("1.45")
    with pytest.raises(EngineUnavailable, match=r"GET /hang within 0\.05 s"):
        await engine.request("GET", "/hang", timeout=0.05)


async def test_an_engine_that_was_silent_is_pinged_first(serve: Serve, hung: asyncio.Event) -> None:
    """So that nobody waits a whole time-out again while it hangs, and everything is as before when it does not."""
    engine = await serve("1.45")
    hung.set()
    assert (await engine.request("GET", "/answer"))["body"] == ""
    with pytest.raises(EngineUnavailable, match="GET /hang"):
        await engine.request("GET", "/hang", timeout=0.05)
    with pytest.raises(EngineUnavailable, match="/_ping within 1 s"):
        await engine.request("GET", "/answer")
    hung.clear()
    assert (await engine.request("GET", "/answer"))["body"] == ""


async def test_a_missing_engine_is_unavailable(tmp_path: Path) -> None:
    engine = DockerEngine(f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await engine.info()
    await engine.close()


async def test_json_lines_are_put_together_from_pieces(serve: Serve) -> None:
    engine = await serve("1.45")
    async with engine.stream("GET", "/lines") as stream:
        assert [line async for line in stream.json_lines()] == [{"a": 1}, {"b": 2}, {"c": 3}]


async def test_a_stream_that_falls_silent_is_ended(serve: Serve) -> None:
    engine = await serve("1.45")
    with pytest.raises(EngineUnavailable, match="GET /lines within"):
        async with engine.stream("GET", "/lines", params={"hang": 1}, idle_timeout=0.05) as stream:
            async for _ in stream.json_lines():
                pass


async def test_a_stream_that_breaks_off_is_unavailable(serve: Serve) -> None:
    engine = await serve("1.45")
    with pytest.raises(EngineUnavailable, match="GET /lines"):
        async with engine.stream("GET", "/lines", params={"break": 1}) as stream:
            async for _ in stream.json_lines():
                pass


async def test_a_broken_upload_raises_its_own_reason(serve: Serve) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise EngineConflict("the source broke")

    engine = await serve("1.45")
    with pytest.raises(EngineConflict, match="the source broke"):
        await engine.request("POST", "/answer", data=source())


async def test_uploads_arrive_whole(serve: Serve) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    engine = await serve("1.45")
    assert (await engine.request("POST", "/answer", data=source()))["body"] == "one two"
