"""Builds an image with the engine's own BuildKit: the context is streamed in, progress is streamed out."""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paasd.build import diagnosis
from paasd.build.output import BuildOutput, title
from paasd.build.session import Session
from paasd.build.trace import decode
from paasd.docker_engine import DockerEngine
from paasd.errors import BuildFailed, EngineError, InvalidInput, SourceRejected
from paasd.names import shown

_EXIT_CODE = re.compile(r"exit code: (\d+)")
_SYNTAX = re.compile(r"(?:#|//)\s*syntax\s*=\s*(.*?)\s*", re.IGNORECASE)
_STOCK_FRONTEND = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:[:@].*)?")
_NO_BASE = re.compile(r"pull access denied|failed to do request|no such host|not found: not found|i/o timeout")
_CANCEL_TIMEOUT = 10.0


@dataclass(frozen=True)
class BuildResult:
    image: str
    """The engine's id of it."""
    steps: int = 0
    cached_steps: int = 0


async def build_image(
    engine: DockerEngine,
    context: AsyncIterator[bytes],
    *,
    tag: str,
    dockerfile: str = "Dockerfile",
    labels: Mapping[str, str] | None = None,
    build_args: Mapping[str, str] | None = None,
    session: Session | None = None,
    mask: Callable[[bytes], bytes] = lambda line: line,
    target: str = "",
    no_cache: bool = False,
    on_line: Callable[[str], None],
    timeout: float,
    idle_timeout: float,
) -> BuildResult:
    """Build `context` (an uncompressed tar) into an image, tagged unless `tag` is empty. `session` gives it secrets,
    `mask` takes them out of the lines it prints.

    Raises BuildFailed with the failed instruction and the last lines it wrote (`log_tail`), or with the time limit
    that was passed. Cancelling the task ends the build in the engine too.
    """
    if "BUILDKIT_SYNTAX" in (build_args or {}):
        raise InvalidInput("the build argument BUILDKIT_SYNTAX is not allowed: it would run a foreign build frontend")
    build_id = uuid.uuid4().hex
    params = {
        "version": 2,
        "buildid": build_id,
        "t": tag or None,
        "dockerfile": dockerfile,
        "labels": dict(labels or {}),
        "buildargs": dict(build_args or {}),
        "target": target or None,
        "nocache": no_cache,
        "forcerm": True,
        "session": session.id if session else None,
        # BuildKit knows nothing of the values. A name for them in /etc/hosts is part of what identifies each RUN.
        "extrahosts": f"{session.fingerprint}.invalid:127.0.0.1" if session and session.secrets else None,
    }
    try:
        async with asyncio.timeout(timeout) as whole, asyncio.timeout(idle_timeout) as idle:
            return await _run(engine, context, params, BuildOutput(on_line, mask), _Activity(idle, idle_timeout))
    except TimeoutError:
        await _cancel(engine, build_id)
        if whole.expired():
            raise _too_long(f"the build took longer than {timeout:g} s", "build.timeout") from None
        if idle.expired():
            error = _too_long(f"the build printed nothing for {idle_timeout:g} s", "build.idle_timeout")
            error.hint += " When no build gets anywhere, ask: paasd doctor"
            raise error from None
        raise
    except asyncio.CancelledError:
        await asyncio.shield(_cancel(engine, build_id))
        raise


def pin_frontend(dockerfile: str) -> str:
    """Drop `# syntax=docker/dockerfile…`: the engine's own frontend is used, so that no registry is needed.

    Raises SourceRejected for any other frontend, which would be foreign code running inside the builder.
    """
    lines = dockerfile.removeprefix("\ufeff").splitlines(keepends=True)
    kept: list[str] = []
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if stripped and not stripped.startswith(("#", "//")):
            return "".join(kept + lines[number - 1 :])
        if match := _SYNTAX.fullmatch(stripped):
            _check_frontend(match[1], number)
            continue
        kept.append(line)
    return "".join(kept)


def _check_frontend(frontend: str, line: int) -> None:
    if not _STOCK_FRONTEND.fullmatch(frontend):
        raise SourceRejected(
            f"Dockerfile line {line} asks for the build frontend {shown(frontend)}; only Docker's own is allowed",
            hint="Remove the line, or write: # syntax=docker/dockerfile:1",
        )


class _Activity:
    """Postpones the idle limit whenever the build or the upload of its context moves."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds

    def seen(self) -> None:
        self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)

    async def watch(self, context: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in context:
            if not self._limit.expired():
                self.seen()
            yield piece


async def _run(
    engine: DockerEngine,
    context: AsyncIterator[bytes],
    params: dict[str, Any],
    output: BuildOutput,
    activity: _Activity,
) -> BuildResult:
    image = ""
    data = activity.watch(context)
    async with engine.stream("POST", "/build", params=params, data=data, open_timeout=None) as stream:
        async for message in stream.json_lines():
            if message.get("id") == "moby.buildkit.trace":
                status = decode(base64.b64decode(message["aux"]))
                output.show(status)
                if status.vertexes or status.logs:
                    activity.seen()
            elif message.get("id") == "moby.image.id":
                image = message["aux"]["ID"]
            elif "error" in message:
                raise _failure(str(message["error"]), output)
    if not image:
        raise EngineError("the container engine ended the build without an image")
    return BuildResult(image, output.steps, output.cached_steps)


def _failure(message: str, output: BuildOutput) -> BuildFailed:
    code = _EXIT_CODE.search(message)
    step = title(output.failed.name) if output.failed else "the build"
    detail = f"{step} failed with exit code {code[1]}" if code else f"{step} failed: {message}"
    error = BuildFailed(detail, hint=_hint(message, code[1] if code else "", output.lines()))
    error.log_tail = output.tail()
    return error


def _hint(message: str, code: str, lines: Sequence[str]) -> str:
    if found := diagnosis.hint(code, lines):
        return found
    if _NO_BASE.search(message):
        return "The engine could not get that image: use one it has (docker images) or one it can pull."
    return "Mend what the last lines above complain about, commit and push again."


def _too_long(detail: str, setting: str) -> BuildFailed:
    return BuildFailed(f"{detail} ({setting})", hint=f"Make the build faster, or raise {setting} in paasd.toml.")


async def _cancel(engine: DockerEngine, build_id: str) -> None:
    """Closing the connection cancels a build; this says it once more by its id, in case the engine did not notice."""
    try:
        await engine.request("POST", "/build/cancel", params={"id": build_id}, timeout=_CANCEL_TIMEOUT)
    except EngineError:
        return
