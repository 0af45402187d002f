"""Runs git: absolute path, argument lists, a clean environment, a time-out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from paasd.errors import PaasdError

GIT = shutil.which("git") or "/usr/bin/git"
_CHUNK = 256 * 1024
_TAIL = 500


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the daemon's own environment, and no configuration but the repository's."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        **(extra or {}),
    }


async def run(
    repository: Path, *args: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 30
) -> bytes:
    """Output of one git command. Raises PaasdError with git's own words when it fails or takes too long."""
    return b"".join([piece async for piece in stream(repository, *args, env=env, stdin=stdin, timeout=timeout)])


async def stream(
    repository: Path, *args: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 600
) -> AsyncGenerator[bytes, None]:
    """Output of one git command, in pieces, never held in memory as a whole. Close it (`aclosing`) when you may stop
    early. Raises as `run` does."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        GIT,
        "-C",
        str(repository),
        *args,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment(env),
        limit=_CHUNK,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    feeding = asyncio.create_task(_feed(process.stdin, stdin))
    complaint = asyncio.create_task(_tail(process.stderr))
    try:
        async with asyncio.timeout(timeout):
            while piece := await process.stdout.read(_CHUNK):
                yield piece
            if await process.wait():
                raise PaasdError(f"git {args[0]} failed: {await complaint}")
    except TimeoutError:
        raise PaasdError(f"git {args[0]} took longer than {timeout:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for task in (feeding, complaint):
            task.cancel()
        await asyncio.gather(feeding, complaint, return_exceptions=True)


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # git ended before it had read all
        stdin.write(data)
        await stdin.drain()
    stdin.close()


async def _tail(stderr: asyncio.StreamReader) -> str:
    kept = b""
    while piece := await stderr.read(_CHUNK):
        kept = (kept + piece)[-_TAIL:]
    return kept.decode(errors="backslashreplace").strip()
