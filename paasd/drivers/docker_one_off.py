"""A one-off command: a container of its own, attached before it starts so that no output is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from paasd.docker_engine import DockerEngine, Hijacked
from paasd.errors import EngineConflict, EngineError, EngineNotFound

END_OF_INPUT = b"\x04"
"""Ctrl-D. To close the connection's input would end the output of a terminal too, but not the command."""
_WAIT_ROUND = 30.0
_KILLED = 137
"""What a shell reports for SIGKILL: the container was removed."""


class DockerOneOff:
    """See `drivers.base.OneOff`."""

    def __init__(
        self,
        engine: DockerEngine,
        container: str,
        connection: Hijacked,
        closed: Callable[[], None],
        *,
        tty: bool,
    ) -> None:
        self._engine = engine
        self._container = container
        self._connection = connection
        self._closed = closed
        self._tty = tty

    @classmethod
    async def start(
        cls,
        engine: DockerEngine,
        container: str,
        closed: Callable[[], None],
        *,
        tty: tuple[int, int] | None,
        stdin: bool,
    ) -> DockerOneOff:
        """`closed` is told when nobody uses it any more, also when it could not be removed."""
        params = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True}
        path = f"/containers/{container}"
        connection = await engine.hijack(f"{path}/attach", params=params, tty=tty is not None)
        try:
            await engine.request("POST", f"{path}/start", timeout=60)
        except BaseException:
            await connection.close()
            raise
        command = cls(engine, container, connection, closed, tty=tty is not None)
        if tty is not None:
            await command.resize(*tty)
        return command

    async def read(self) -> tuple[int, bytes] | None:
        return await self._connection.read()

    async def write(self, data: bytes) -> None:
        await self._connection.write(data)

    async def close_input(self) -> None:
        if self._tty:
            await self._connection.write(END_OF_INPUT)
        else:
            await self._connection.close_input()

    async def resize(self, columns: int, rows: int) -> None:
        try:
            await self._engine.request(
                "POST", f"/containers/{self._container}/resize", params={"w": columns, "h": rows}
            )
        except (EngineConflict, EngineNotFound):
            return  # it has ended already

    async def wait(self) -> int:
        try:
            return await ended(self._engine, self._container)
        except EngineNotFound:
            return _KILLED

    async def __aenter__(self) -> DockerOneOff:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._connection.close()
            await asyncio.shield(self._remove())
        finally:
            self._closed()

    async def _remove(self) -> None:
        try:
            await self._engine.request(
                "DELETE", f"/containers/{self._container}", params={"force": 1, "v": 1}, timeout=60
            )
        except EngineNotFound:
            return
        except EngineError as error:
            if not isinstance(error, EngineConflict):
                raise


async def ended(engine: DockerEngine, container: str) -> int:
    """The exit status of a container once it has ended. Raises EngineNotFound when it is missing."""
    # In rounds, so that an engine that hangs is noticed however long the command runs.
    while True:
        try:
            async with asyncio.timeout(_WAIT_ROUND):
                result = await engine.request("POST", f"/containers/{container}/wait", timeout=_WAIT_ROUND * 2)
            return int(result["StatusCode"])
        except TimeoutError:
            await engine.version()
            await engine.request("GET", "/_ping")
