"""A command inside a running container."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence

from paasd.docker_engine import DockerEngine, Hijacked
from paasd.drivers.docker_one_off import END_OF_INPUT
from paasd.errors import EngineConflict, EngineError, EngineNotFound

_log = logging.getLogger(__name__)

_MARK = "PAASD_EXEC"
_POLL = 0.05
_KILLED = 137
# The engine cannot end what it started this way, and a process's number in the container is not known outside: whatever
# has our mark in its environment belongs to the command.
_HANG_UP = """
for signal in HUP KILL; do
    found=
    for process in /proc/[0-9]*; do
        case "$(cat "$process/environ" 2>/dev/null)" in
            *"$1"*) kill -"$signal" "${process#/proc/}" 2>/dev/null && found=yes ;;
        esac
    done
    [ "$found" ] || exit 0
    sleep 1
done
"""


class DockerExec:
    """See `drivers.base.OneOff`."""

    def __init__(
        self, engine: DockerEngine, container: str, id: str, mark: str, connection: Hijacked, *, tty: bool
    ) -> None:
        self._engine = engine
        self._container = container
        self._id = id
        self._mark = mark
        self._connection = connection
        self._tty = tty

    @classmethod
    async def start(
        cls, engine: DockerEngine, container: str, command: Sequence[str], *, tty: tuple[int, int] | None, stdin: bool
    ) -> DockerExec:
        mark = f"{_MARK}={secrets.token_hex(8)}"
        terminal = {"Tty": tty is not None}
        streams = {"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True}
        body = {**terminal, **streams, "Cmd": list(command), "Env": [mark, *(["TERM=xterm"] if tty else [])]}
        created = await engine.request("POST", f"/containers/{container}/exec", json=body)
        start = {"Detach": False, **terminal}
        connection = await engine.hijack(f"/exec/{created['Id']}/start", json=start, tty=tty is not None)
        running = cls(engine, container, created["Id"], mark, connection, tty=tty is not None)
        if tty is not None:
            await running.resize(*tty)
        return running

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
            await self._engine.request("POST", f"/exec/{self._id}/resize", params={"w": columns, "h": rows})
        except EngineError as error:
            if type(error) not in (EngineError, EngineConflict, EngineNotFound):
                raise  # the others mean that it has ended already

    async def wait(self) -> int:
        while True:
            if (status := await self._status()) is not None:
                return status
            await asyncio.sleep(_POLL)

    async def __aenter__(self) -> DockerExec:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._connection.close()
        await asyncio.shield(self._hang_up())

    async def _status(self) -> int | None:
        """None while it runs."""
        try:
            state = await self._engine.request("GET", f"/exec/{self._id}/json")
        except EngineNotFound:
            return _KILLED  # with its container
        return None if state["Running"] else int(state["ExitCode"] or 0)

    async def _hang_up(self) -> None:
        """As far as the image has a shell; what is left then ends with the instance."""
        try:
            if await self._status() is None:
                await self._engine.exec(self._container, ["/bin/sh", "-c", _HANG_UP, "sh", self._mark])
        except EngineError as error:
            _log.info("a command in %s may be left running: %s", self._container, error.detail)
