"""A session of BuildKit, over which the engine asks for the secrets of `RUN --mount=type=secret` while it builds.

The connection is opened by us, but on it the engine is the client: it sends calls of gRPC. The messages are of
github.com/moby/buildkit session/secrets/secrets.proto and of grpc/health/v1.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from paasd.build.grpc_server import INTERNAL, NOT_FOUND, CallFailed, serve
from paasd.build.trace import fields
from paasd.docker_engine import DockerEngine
from paasd.models import Secret

_GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
_OPEN_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 5.0
_OTHER = re.compile(r"^(?=[0-9])|[^A-Z0-9_]|^$")
_LONGEST = 128
_log = logging.getLogger(__name__)


@dataclass
class Session:
    secrets: Mapping[str, Secret]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    missing: dict[str, None] = field(default_factory=dict)
    """Names of the config vars that the build asked for and does not see, in order."""

    @property
    def fingerprint(self) -> str:
        """Of names and values: a word that changes with them."""
        values = [(name, secret.reveal()) for name, secret in sorted(self.secrets.items())]
        return f"secrets-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]}"

    def answer(self, message: bytes) -> bytes:
        """GetSecretRequest: 1 ID. GetSecretResponse: 1 data."""
        try:
            asked = dict(fields(message)).get(1, b"")
        except (IndexError, ValueError) as error:
            raise CallFailed(INTERNAL, f"not a request for a secret: {error}") from None
        name = asked.decode(errors="replace") if isinstance(asked, bytes) else ""
        secret = self.secrets.get(name) or self.secrets.get(config_var(name))
        if secret is None:
            self.missing[config_var(name)] = None
            raise CallFailed(NOT_FOUND, f"the build does not see a config var {config_var(name)}")
        value = secret.reveal().encode()
        return b"\x0a" + _varint(len(value)) + value


def config_var(name: str) -> str:
    """The config var that a secret is taken from when none has its very name: `NPM_TOKEN` for `npm-token`."""
    return _OTHER.sub("_", name.upper())[:_LONGEST]


@asynccontextmanager
async def opened(engine: DockerEngine, secrets: Mapping[str, Secret]) -> AsyncIterator[Session]:
    """A session that answers as long as the block lasts; its connection ends with it. Raises EngineError."""
    session = Session(secrets)
    handlers = {_GET_SECRET: session.answer, _HEALTH: lambda message: _SERVING}
    headers = [
        ("X-Docker-Expose-Session-Uuid", session.id),
        ("X-Docker-Expose-Session-Name", "paasd"),
        ("X-Docker-Expose-Session-Sharedkey", ""),
        *(("X-Docker-Expose-Session-Grpc-Method", path) for path in handlers),
    ]
    reader, writer = await engine.upgrade("/session", "h2c", headers, timeout=_OPEN_TIMEOUT)
    serving = asyncio.create_task(serve(reader, writer, handlers))
    try:
        yield session
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await serving
            except OSError as error:
                _log.warning("a session with the container engine broke: %s", error)
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await writer.wait_closed()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
