"""A real edge on a free port, and small real apps behind it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil
import pytest
from aiohttp import web

from paasd.config import HttpConfig
from paasd.edge_values import Endpoint, InFlight, Route, Site
from paasd.route.edge import Edge
from tests.ports import free_port

TEMPLATES = Path(__file__).parents[3] / "nginx"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hastened(file, slow, quick): an edge with other words in a template's place")


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that happens by itself."""
    for _ in range(600):
        if await check():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not happen within 30 s")


@dataclass
class Visitor:
    """Asks the edge as a browser would, naming the host it wants."""

    port: int
    session: aiohttp.ClientSession

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def get(self, host: str, path: str = "/", **headers: str) -> tuple[int, str]:
        async with self.session.get(self.url(path), headers={"Host": host, **headers}) as response:
            return response.status, await response.text()

    async def reaches(self, host: str) -> bool:
        """False while nobody listens."""
        try:
            return (await self.get(host))[0] == 200
        except aiohttp.ClientError:
            return False


class Apps:
    """Starts upstreams; each lives until the test ends."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def start(self, handler: Handler) -> Endpoint:
        webapp = web.Application(client_max_size=1024**3)
        webapp.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(webapp, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return Endpoint("127.0.0.1", port)

    async def saying(self, text: str) -> Endpoint:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(text=text)

        return await self.start(answer)

    async def raw(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Endpoint:
        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(closing, "127.0.0.1", 0)
        self._stack.callback(server.close)
        return Endpoint("127.0.0.1", int(server.sockets[0].getsockname()[1]))


def hastened(templates: Path, directory: Path, name: str, slow: str, quick: str) -> Path:
    """Templates of which one has another time in place of `slow`, for tests that would wait for it."""
    templates = Path(shutil.copytree(templates, directory / f"templates-{secrets.token_hex(4)}"))
    text = (templates / name).read_text()
    assert text.count(slow) == 1, f"{name} does not say {slow} once"
    (templates / name).write_text(text.replace(slow, quick))
    return templates


@asynccontextmanager
async def running_edge(
    port: int | None = None, *, https: bool = True, templates: Path = TEMPLATES
) -> AsyncIterator[tuple[Edge, Path, HttpConfig]]:
    """The directory is made here because a Unix socket's path has to be short."""
    port, https_port = port or free_port(), free_port()
    with TemporaryDirectory(prefix="edge-") as name:
        http = HttpConfig(address="127.0.0.1", port=port, https_port=https_port if https else 0)
        edge = Edge(Path(name), templates, http)
        try:
            await edge.start()
            yield edge, Path(name), http
        finally:
            await edge.stop()


@dataclass
class Bench:
    """What most tests need: an edge, its directory, a visitor, and apps."""

    edge: Edge
    directory: Path
    http: HttpConfig
    visitor: Visitor
    apps: Apps

    async def kill_nginx(self) -> None:
        master = await asyncio.to_thread(self.edge._nginx.master)
        assert master is not None
        family = [master, *master.children()]
        for process in family:
            os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, family, 5)

    async def in_flight_is(self, wanted: dict[str, InFlight]) -> None:
        async def is_so() -> bool:
            return await self.edge.in_flight() == wanted

        await until(is_so)

    async def serve(self, app: str, *endpoints: Endpoint, **site: object) -> str:
        """Give `app` a site and a route. Returns its host name."""
        host = f"{app}.test"
        await self.edge.set_site(Site(app, (host,), **site))  # type: ignore[arg-type]
        await self.edge.set_route(Route(app, endpoints, 1))
        return host


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Marked with `hastened(file, slow, quick)`: of an edge with these words in the file's place of those."""
    templates = TEMPLATES
    for mark in request.node.iter_markers("hastened"):
        templates = hastened(templates, tmp_path, *mark.args)
    async with AsyncExitStack() as stack:
        edge, directory, http = await stack.enter_async_context(running_edge(templates=templates))
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        yield Bench(edge, directory, http, Visitor(http.port, session), Apps(stack))
