"""Calls to the engine. The API version is negotiated once: the engine's own, at most the newest that is known."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiodocker
import aiohttp
from aiodocker.stream import Stream
from yarl import URL

from paasd import failpoints
from paasd.docker_engine.failures import CONNECTION_FAILED, silent, translated
from paasd.docker_engine.protocol import Params, decoded, encoded, negotiated, upgrade_request
from paasd.docker_engine.streams import EngineStream, Hijacked
from paasd.docker_engine.upload import Upload, in_pieces
from paasd.errors import EngineError, EngineUnavailable

CONNECT_TIMEOUT = 5.0
PING_TIMEOUT = 1.0

Body = bytes | AsyncIterator[bytes]


class DockerEngine:
    """Connects on first use; `close()` when done. Belongs to one event loop."""

    def __init__(self, docker_host: str) -> None:
        self.docker_host = docker_host
        self._docker: aiodocker.Docker | None = None
        self._negotiating = asyncio.Lock()
        self._version: dict[str, Any] | None = None
        self._suspect = False
        """It was silent when last asked, so that it is pinged before the next call: whoever asks a hung engine should
        not wait a minute to hear that it hangs."""

    async def version(self) -> dict[str, Any]:
        """What `/version` says. Raises EngineUnavailable when the engine is older than paasd supports."""
        async with self._negotiating:
            return await self._negotiate()

    async def info(self) -> dict[str, Any]:
        result: dict[str, Any] = await self.request("GET", "/info")
        return result

    async def close(self) -> None:
        docker, self._docker, self._version = self._docker, None, None
        if docker is not None:
            await docker.close()
            await docker.connector.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        data: Body | None = None,
        timeout: float = 30.0,
    ) -> Any:
        """One call and its whole answer: JSON decoded, other text as str, nothing as None."""
        async with self._timed(f"{method} {path}", timeout):
            async with self._response(method, path, params=params, json=json, data=data) as response:
                return decoded(await response.read(), response.content_type)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        data: Body | None = None,
        headers: Mapping[str, str] | None = None,
        open_timeout: float | None = 30.0,
        idle_timeout: float | None = None,
    ) -> AsyncIterator[EngineStream]:
        """A call whose answer comes in pieces. Leaving the block ends the call on the engine's side too.

        `open_timeout` ends the wait for the first byte of the answer; None for calls that upload first, whose
        caller bounds the whole.
        """
        what = f"{method} {path}"
        async with AsyncExitStack() as stack:
            async with self._timed(what, open_timeout):
                response = await stack.enter_async_context(
                    self._response(method, path, params=params, json=json, data=data, headers=headers)
                )
            yield EngineStream(response, what, idle_timeout)

    async def hijack(
        self, path: str, *, params: Params | None = None, json: Any = None, tty: bool = False, timeout: float = 30.0
    ) -> Hijacked:
        """Attach to a container or start an exec with its input and output on one connection."""
        async with self._timed(f"POST {path}", timeout):
            docker = await self._ready()

            async def setup() -> tuple[URL, bytes | None, bool]:
                url = URL(path.lstrip("/")).with_query(encoded(params))
                return url, None if json is None else jsonlib.dumps(json).encode(), tty

            stream = Stream(docker, setup)
            await stream._init()
            return Hijacked(stream, f"POST {path}")

    async def upgrade(
        self, path: str, protocol: str, headers: Iterable[tuple[str, str]], *, timeout: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own, on which the engine agreed to speak `protocol`. The caller closes it."""
        what = f"POST {path}"
        async with self._timed(what, timeout):
            docker = await self._ready()
            reader, writer = await self._connection(what)
            try:
                writer.write(upgrade_request(f"/{docker.api_version}{path}", protocol, headers))
                head = await reader.readuntil(b"\r\n\r\n")
                status = head.partition(b"\r\n")[0].decode(errors="replace")
                if status.split(" ")[1:2] != ["101"]:
                    raise EngineError(f"the container engine refused {what}: {status}")
            except (EOFError, asyncio.LimitOverrunError, ConnectionError) as error:
                writer.close()
                raise EngineUnavailable(
                    f"the connection to the container engine broke during {what}: {error}"
                ) from error
            except BaseException:
                writer.close()
                raise
        return reader, writer

    async def _connection(self, what: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = URL(self.docker_host)
        try:
            if url.scheme == "unix":
                return await asyncio.open_unix_connection(url.path)
            return await asyncio.open_connection(url.host, url.port)
        except OSError as error:
            raise EngineUnavailable(f"the container engine does not answer {what}: {error}") from error

    async def exec(self, container: str, command: list[str], *, timeout: float = 10.0) -> tuple[int, bytes]:
        """Run a command inside a running container: its exit status and its output, both streams merged."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": command}
        output = bytearray()
        async with self._timed(f"exec in {container}", timeout):
            created = await self.request("POST", f"/containers/{container}/exec", json=body)
            hijacked = await self.hijack(f"/exec/{created['Id']}/start", json={"Detach": False, "Tty": False})
            try:
                while (piece := await hijacked.read()) is not None:
                    output += piece[1]
            finally:
                await hijacked.close()
            state = await self.request("GET", f"/exec/{created['Id']}/json")
        return int(state["ExitCode"] or 0), bytes(output)

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        *,
        params: Params | None,
        json: Any,
        data: Body | None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        docker = await self._ready()
        url = URL(path.lstrip("/")).with_query(encoded(params))
        upload = Upload(in_pieces(data) if isinstance(data, bytes) else data) if data is not None else None
        body = upload.pieces() if upload else jsonlib.dumps(json).encode() if json is not None else None
        kind = "application/json" if data is None else "application/x-tar"
        try:
            async with docker._query(
                url, method, data=body, headers={"Content-Type": kind, **(headers or {})}, timeout=None
            ) as response:
                try:
                    yield response
                finally:
                    response.close()  # a no-op once the answer was read to its end
        except (aiodocker.DockerError, aiohttp.ClientError, OSError, EngineError):
            if upload is not None and upload.error is not None:
                raise upload.error from None
            raise

    async def _ready(self) -> aiodocker.Docker:
        if self._docker is None or self._version is None:
            async with self._negotiating:
                await self._negotiate()
        assert self._docker is not None
        if self._suspect:
            await self._ping(self._docker)
        return self._docker

    async def _ping(self, docker: aiodocker.Docker) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                async with docker._query("_ping", versioned_api=False):
                    self._suspect = False
        except TimeoutError:
            raise silent("GET /_ping", PING_TIMEOUT) from None

    async def _negotiate(self) -> dict[str, Any]:
        if self._version is not None:
            return self._version
        docker = self._docker = self._docker or self._connect()
        async with self._timed("GET /version", CONNECT_TIMEOUT):
            async with docker._query("version", versioned_api=False) as response:
                version: dict[str, Any] = await response.json()
        docker.api_version = negotiated(str(version.get("ApiVersion", "0.0")))
        self._version = version
        return version

    def _connect(self) -> aiodocker.Docker:
        # aiohttp's usual limit of 100 connections would let a hundred followed logs block every other call.
        if self.docker_host.startswith("unix://"):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(self.docker_host.removeprefix("unix://"), limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0)
        host = "unix://localhost" if self.docker_host.startswith("unix://") else self.docker_host
        return aiodocker.Docker(
            host, connector=connector, api_version="v1.41", timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
        )

    @asynccontextmanager
    async def _timed(self, what: str, timeout: float | None) -> AsyncIterator[None]:
        with translated(what):
            try:
                async with asyncio.timeout(timeout), failpoints.call("engine", lambda: silent(what, timeout or 0)):
                    yield
            except TimeoutError:
                self._suspect = True
                raise silent(what, timeout or 0) from None
            except aiodocker.DockerError as error:
                if error.status == CONNECTION_FAILED:
                    self._version = None  # another engine may answer next time
                raise
