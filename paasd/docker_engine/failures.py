"""Errors of the engine and of the way to it, as errors of our own tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiodocker
import aiohttp

from paasd.errors import EngineConflict, EngineError, EngineNotFound, EngineUnavailable

CONNECTION_FAILED = 900
"""aiodocker's status for an engine that cannot be reached."""


def silent(what: str, timeout: float) -> EngineUnavailable:
    return EngineUnavailable(f"the container engine did not answer {what} within {timeout:g} s")


@contextmanager
def translated(what: str) -> Iterator[None]:
    try:
        yield
    except aiodocker.DockerError as error:
        raise _engine_error(what, error) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise EngineUnavailable(f"the connection to the container engine broke during {what}: {error}") from error


def _engine_error(what: str, error: aiodocker.DockerError) -> EngineError:
    message = str(error.message).strip()
    if error.status == CONNECTION_FAILED:
        return EngineUnavailable(f"the container engine does not answer: {message}")
    kinds: dict[int, type[EngineError]] = {404: EngineNotFound, 409: EngineConflict}
    return kinds.get(error.status, EngineError)(f"the container engine refused {what}: {message}")
