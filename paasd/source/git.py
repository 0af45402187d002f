"""Runs git: absolute path, argument lists, a clean environment, a time-out."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from paasd.errors import PaasdError

GIT = shutil.which("git") or "/usr/bin/git"
_CHUNK = 256 * 1024


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
    process = await asyncio.create_subprocess_exec(
        GIT,
        "-C",
        str(repository),
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(env),
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise PaasdError(f"git {args[0]} took longer than {timeout:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise PaasdError(f"git {args[0]} failed: {err.decode(errors='backslashreplace').strip()[-500:]}")
    return out


async def stream(
    repository: Path, *args: str, env: Mapping[str, str] | None = None, timeout: float = 600
) -> AsyncIterator[bytes]:
    """Output of one git command, in pieces, never held in memory as a whole."""
    process = await asyncio.create_subprocess_exec(
        GIT,
        "-C",
        str(repository),
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(env),
        limit=_CHUNK,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(timeout):
            while piece := await process.stdout.read(_CHUNK):
                yield piece
            error = await process.stderr.read()
            if await process.wait():
                raise PaasdError(f"git {args[0]} failed: {error.decode(errors='backslashreplace').strip()[-500:]}")
    except TimeoutError:
        raise PaasdError(f"git {args[0]} took longer than {timeout:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
