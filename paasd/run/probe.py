"""Asks one instance one check, once, and says in words what was seen."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass

import aiohttp

from paasd.checks import Check
from paasd.drivers.base import Driver
from paasd.errors import EngineError
from paasd.models import InstanceState
from paasd.run.instances import InstanceRow
from paasd.run.plain_http import NoHttp, PlainHttp

_MAX_BODY = 64 * 1024
_MAX_SEEN = 200


@dataclass(frozen=True)
class Answer:
    ok: bool
    seen: str
    """`GET /health answered 500, expected 200 to 399`"""
    seconds: float = 0.0
    silent: bool = False
    """Nobody answered at all, as while an app starts."""


class Probe:
    """Connections are not kept: a server that takes one at a time would have none for its visitors."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._plain = PlainHttp()
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, row: InstanceRow, check: Check, host: str, *, within: float | None = None) -> Answer:
        """`host` is sent as the Host header; `within` seconds at most, if that is less than the check's own time."""
        seconds = check.timeout if within is None else min(check.timeout, max(0.05, within))
        started = time.perf_counter()
        try:
            if check.command:
                answer = await self._run(row, check, seconds)
            elif not check.asks:
                answer = await self._up(row, check)
            else:
                async with asyncio.timeout(seconds):
                    answer = await (self._listen(row, check) if check.listening else self._get(row, check, host))
        except TimeoutError:
            answer = Answer(False, f"{check.what} gave no answer in {seconds:.3g} s", silent=True)
        return Answer(answer.ok, answer.seen, time.perf_counter() - started, answer.silent)

    async def close(self) -> None:
        self._plain.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, row: InstanceRow, check: Check, host: str) -> Answer:
        path = check.path or "/"
        headers = {"Host": host, "User-Agent": "paasd-health-check", "Accept": "*/*", **dict(check.headers)}
        try:
            if check.scheme == "http" and check.content is None:
                return _judged(check, await self._plain.status_of(row.address, check.port, path, headers), "")
            url = f"{check.scheme}://{row.address}:{check.port}{path}"
            async with self._opened().get(url, headers=headers, allow_redirects=False) as response:
                text = await _start_of(response) if check.content is not None else ""
                return _judged(check, response.status, text)
        except TimeoutError:
            raise
        except OSError as error:  # aiohttp's own are OSErrors too
            return Answer(False, f"{check.what}: {_reason(error)} on port {check.port}", silent=True)
        except (NoHttp, aiohttp.ClientError, ValueError) as error:
            return Answer(False, f"{check.what}: {error or type(error).__name__}"[:_MAX_SEEN], silent=True)

    async def _listen(self, row: InstanceRow, check: Check) -> Answer:
        try:
            _, writer = await asyncio.open_connection(row.address, check.port)
        except OSError as error:
            return Answer(False, f"port {check.port}: {_reason(error)}", silent=True)
        writer.close()
        return Answer(True, f"port {check.port} takes connections")

    async def _run(self, row: InstanceRow, check: Check, seconds: float) -> Answer:
        try:
            status, output = await self._driver.exec_once(row.name, check.command, seconds)
        except EngineError as error:
            return Answer(False, f"{check.what} could not be run: {error.detail}"[:_MAX_SEEN])
        said = " ".join(output.split())[:_MAX_SEEN]
        ended = f"{check.what} ended with status {status}"
        return Answer(status == 0, f"{ended}: {said}" if said and status else ended)

    async def _up(self, row: InstanceRow, check: Check) -> Answer:
        instance = await self._driver.inspect(row.name)
        if instance is None or instance.state is not InstanceState.RUNNING:
            return Answer(False, "it does not run")
        seconds = max(0.0, time.time() - (instance.started_at or 0))
        return Answer(seconds >= check.uptime, f"it has run for {seconds:.0f} s")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # What an app shows of itself inside its own network proves nothing, so its certificate is not looked at.
            trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=trusting)
            jar, timeout = aiohttp.DummyCookieJar(), aiohttp.ClientTimeout(total=None)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=jar, timeout=timeout, auto_decompress=False
            )
        return self._session


async def _start_of(response: aiohttp.ClientResponse) -> str:
    body = b""
    while len(body) < _MAX_BODY and (piece := await response.content.read(_MAX_BODY - len(body))):
        body += piece
    return body.decode(errors="replace")


def _judged(check: Check, status: int, text: str) -> Answer:
    if not check.takes(status):
        return Answer(False, f"{check.what} answered {status}, expected {check.expected}")
    if check.content is not None and check.content not in text:
        return Answer(False, f"{check.what} answered {status}, but without the text {check.content!r}")
    return Answer(True, f"{check.what} answered {status}")


def _reason(error: OSError) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return os.strerror(cause.errno).lower() if cause.errno else str(cause) or type(cause).__name__
