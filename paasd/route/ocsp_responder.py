"""Asks the OCSP responders that certificates name. Who imports a certificate chooses the address, so it must not
lead to what he cannot reach himself."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from paasd.errors import CertificateError, InvalidInput
from paasd.names import shown
from paasd.outbound import Pinned, look_up, may_reach

_TIMEOUT = 10.0
_MAX_ANSWER = 64 * 1024
"""Bytes; answers with the certificate of who signed them have two to four thousand."""
_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?(?:/[\x21-\x7e]{0,1000})?")
"""No user, no backslash before the path: nothing that two parsers read differently."""
_TYPE = "application/ocsp-request"


class OcspResponders:
    def __init__(self, apps: str, allowed: str) -> None:
        """Networks of the apps, which are never asked, and those beside public addresses that may be."""
        self._apps = apps
        self._allowed = allowed

    async def ask(self, url: str, request: bytes) -> bytes:
        """What is answered, unchecked. Raises CertificateError."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._answer(url, request)
        except TimeoutError:
            raise CertificateError(f"it does not answer within {_TIMEOUT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CertificateError(f"it does not answer: {str(error) or type(error).__name__}"[:500]) from None

    async def _answer(self, url: str, request: bytes) -> bytes:
        connector = await self._connector(url)
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.post(url, data=request, headers={"Content-Type": _TYPE}, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise CertificateError(f"it answers with status {response.status}")
            answer = bytearray()
            async for piece in response.content.iter_chunked(8192):
                answer += piece
                if len(answer) > _MAX_ANSWER:
                    raise CertificateError(f"it answers with more than {_MAX_ANSWER} bytes")
            return bytes(answer)

    async def _connector(self, url: str) -> aiohttp.TCPConnector:
        """To the address that was judged. Raises CertificateError unless that is allowed."""
        if not _URL.fullmatch(url):
            raise CertificateError(f"{shown(url)} is no address that is asked")
        try:
            host, _, address = await look_up(url)
        except InvalidInput as error:
            raise CertificateError(error.detail) from None
        if not may_reach(address, self._apps, self._allowed):
            raise CertificateError(
                f"{shown(host)} is at {address}, which is no public address (http.ocsp_to in paasd.toml)"
            )
        return aiohttp.TCPConnector(resolver=Pinned(address), force_close=True)
