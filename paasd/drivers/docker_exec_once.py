"""Commands inside a running container, for the daemon's own questions: no terminal, no input, little output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from paasd.docker_engine import DockerEngine
from paasd.errors import EngineError

_MOST_OUTPUT = 16 * 1024
_ANSWER_TIMEOUT = 10.0


async def exec_once(engine: DockerEngine, name: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
    """Exit status and start of the output. Raises TimeoutError when the command takes longer; it is ended then."""
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
    created = await engine.request("POST", f"/containers/{name}/exec", json=body, timeout=_ANSWER_TIMEOUT)
    try:
        async with asyncio.timeout(timeout):
            output = await _output(engine, created["Id"])
    except BaseException:
        # Closing the connection leaves the command running, and the engine has no call that ends it.
        await asyncio.shield(_end(engine, created["Id"]))
        raise
    state = await engine.request("GET", f"/exec/{created['Id']}/json", timeout=_ANSWER_TIMEOUT)
    return int(state["ExitCode"] or 0), output.decode(errors="replace")


async def _output(engine: DockerEngine, exec_id: str) -> bytes:
    hijacked = await engine.hijack(f"/exec/{exec_id}/start", json={"Detach": False, "Tty": False})
    output = bytearray()
    try:
        while (piece := await hijacked.read()) is not None:
            output += piece[1][: max(0, _MOST_OUTPUT - len(output))]
    finally:
        await hijacked.close()
    return bytes(output)


async def _end(engine: DockerEngine, exec_id: str) -> None:
    """Where the daemon sees the engine's processes."""
    with contextlib.suppress(EngineError):
        state = await engine.request("GET", f"/exec/{exec_id}/json", timeout=_ANSWER_TIMEOUT)
        if state.get("Running") and state.get("Pid"):
            await asyncio.to_thread(_kill, int(state["Pid"]), str(state["ContainerID"]))


def _kill(pid: int, container: str) -> None:
    with contextlib.suppress(OSError):
        if container in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, signal.SIGKILL)
