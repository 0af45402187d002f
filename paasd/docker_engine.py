"""The one door to the container engine: HTTP on its socket, a time-out on every call, errors of our own tree.

Nothing else imports aiodocker. What the calls mean is known by `drivers/docker.py` (instances, networks) and
`build/` (images). The API version is negotiated once: the engine's own, at most `NEWEST_API`.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiodocker
import aiohttp
from aiodocker.stream import Stream
from yarl import URL

from paasd import failpoints
from paasd.errors import EngineConflict, EngineError, EngineNotFound, EngineUnavailable

OLDEST_API = (1, 41)
NEWEST_API = (1, 51)
CONNECT_TIMEOUT = 5.0
PING_TIMEOUT = 1.0
MAX_JSON_LINE = 16 * 1024**2
_CONNECTION_FAILED = 900  # aiodocker's status for an engine that cannot be reached

Params = Mapping[str, Any] | Iterable[tuple[str, Any]]
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
                return _decoded(await response.read(), response.content_type)

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
                url = URL(path.lstrip("/")).with_query(_encoded(params))
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
                writer.write(_upgrade_request(f"/{docker.api_version}{path}", protocol, headers))
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
        url = URL(path.lstrip("/")).with_query(_encoded(params))
        upload = _Upload(_cut(data) if isinstance(data, bytes) else data) if data is not None else None
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
            raise _silent("GET /_ping", PING_TIMEOUT) from None

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
        with _translated(what):
            try:
                async with asyncio.timeout(timeout), failpoints.call("engine", lambda: _silent(what, timeout or 0)):
                    yield
            except TimeoutError:
                self._suspect = True
                raise _silent(what, timeout or 0) from None
            except aiodocker.DockerError as error:
                if error.status == _CONNECTION_FAILED:
                    self._version = None  # another engine may answer next time
                raise


class EngineStream:
    """The answer of a streaming call. Iterate it once, in one way."""

    def __init__(self, response: aiohttp.ClientResponse, what: str, idle_timeout: float | None) -> None:
        self._response = response
        self._what = what
        self._idle_timeout = idle_timeout

    async def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as they come. Raises EngineUnavailable after `idle_timeout` seconds of silence."""
        while True:
            with _translated(self._what):
                try:
                    async with asyncio.timeout(self._idle_timeout):
                        chunk = await self._response.content.readany()
                except TimeoutError:
                    raise _silent(self._what, self._idle_timeout or 0) from None
            if not chunk:
                return
            yield chunk

    async def json_lines(self) -> AsyncIterator[dict[str, Any]]:
        """JSON objects, one a line."""
        buffer = bytearray()
        async for chunk in self.chunks():
            buffer += chunk
            *lines, rest = buffer.split(b"\n")
            for line in lines:
                if line.strip():
                    yield jsonlib.loads(line)
            buffer = bytearray(rest)
            if len(buffer) > MAX_JSON_LINE:
                raise EngineError(f"{self._what}: the container engine sent a line of over {MAX_JSON_LINE} bytes")
        if buffer.strip():
            yield jsonlib.loads(buffer)


class Hijacked:
    """A raw connection to a process in a container."""

    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        self._what = what

    async def read(self) -> tuple[int, bytes] | None:
        """Next `(stream, data)`; stream 1 is output, 2 is error output. None at the end."""
        with _translated(self._what):
            message = await self._stream.read_out()
        return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        with _translated(self._what):
            await self._stream.write_in(data)

    async def close_input(self) -> None:
        """End the process's input; its output can still be read."""
        response = self._stream._resp
        transport = response.connection.transport if response is not None and response.connection else None
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    async def close(self) -> None:
        response = self._stream._resp
        if response is not None and response.connection is not None:
            response.connection.close()
        self._stream._closed = True


class _Upload:
    """Remembers why an upload broke off: the HTTP client only reports that it did."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.error: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._source:
                yield piece
        except Exception as error:
            self.error = error
            raise


async def _cut(data: bytes) -> AsyncIterator[bytes]:
    # In one piece it would hold up the event loop.
    for start in range(0, len(data), 2**16):
        yield data[start : start + 2**16]


def _upgrade_request(path: str, protocol: str, headers: Iterable[tuple[str, str]]) -> bytes:
    fixed = (("Host", "docker"), ("Connection", "Upgrade"), ("Upgrade", protocol), ("Content-Length", "0"))
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (*fixed, *headers))]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def negotiated(offered: str) -> str:
    """The API version to speak with an engine that offers `offered`, as `v1.41`."""
    try:
        major, minor = (int(part) for part in offered.split(".", 1))
    except ValueError:
        raise EngineUnavailable(f"the container engine names no API version that is understood: {offered!r}") from None
    if (major, minor) < OLDEST_API:
        raise EngineUnavailable(
            f"the container engine speaks API {offered}, paasd needs {_dotted(OLDEST_API)} or newer",
            hint="Upgrade Docker to 20.10 or newer.",
        )
    return f"v{_dotted(min((major, minor), NEWEST_API))}"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _encoded(params: Params | None) -> list[tuple[str, str]]:
    pairs = params.items() if isinstance(params, Mapping) else params or ()
    return [(key, _encoded_value(value)) for key, value in pairs if value is not None]


def _encoded_value(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return jsonlib.dumps(value) if isinstance(value, dict | list) else str(value)


def _decoded(body: bytes, content_type: str) -> Any:
    if not body.strip():
        return None
    return jsonlib.loads(body) if content_type == "application/json" else body.decode(errors="backslashreplace")


def _silent(what: str, timeout: float) -> EngineUnavailable:
    return EngineUnavailable(f"the container engine did not answer {what} within {timeout:g} s")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except aiodocker.DockerError as error:
        raise _engine_error(what, error) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise EngineUnavailable(f"the connection to the container engine broke during {what}: {error}") from error


def _engine_error(what: str, error: aiodocker.DockerError) -> EngineError:
    message = str(error.message).strip()
    if error.status == _CONNECTION_FAILED:
        return EngineUnavailable(f"the container engine does not answer: {message}")
    kinds: dict[int, type[EngineError]] = {404: EngineNotFound, 409: EngineConflict}
    return kinds.get(error.status, EngineError)(f"the container engine refused {what}: {message}")
