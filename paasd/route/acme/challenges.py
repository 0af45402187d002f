"""Shows an authority that host names are ours: by a file at the edge (HTTP-01), or by a TXT record (DNS-01)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from paasd.config import AcmeConfig
from paasd.errors import CertificateError, PaasdError
from paasd.route.edge_tls import EdgeTls

if TYPE_CHECKING:
    from paasd.route.acme.dns import Records

HTTP, DNS = "http-01", "dns-01"
_log = logging.getLogger(__name__)


class Challenges:
    def __init__(self, config: AcmeConfig, edge: EdgeTls) -> None:
        self._config = config
        self._edge = edge

    def kind(self, name: str, offered: Collection[str], wish: str) -> str:
        """Which of the offered kinds to use: what the app wishes, what the name needs, else a file. Raises
        CertificateError when none of them is possible."""
        possible = set() if name.startswith("*.") else {HTTP} & set(offered)
        if self._config.dns:
            possible |= {DNS} & set(offered)
        wanted = [wish] if wish else [HTTP, DNS]
        for kind in wanted:
            if kind in possible:
                return kind
        if not self._config.dns and (wish == DNS or name.startswith("*.")):
            raise CertificateError(
                f"{name} needs DNS-01, which is not set up", hint="Set acme.dns in paasd.toml: docs/edge.md tells how."
            )
        if wish == HTTP and name.startswith("*."):
            raise CertificateError(
                f"{name} needs DNS-01, and the app wants http-01", hint="Let it choose: tls:set APP challenge ''"
            )
        raise CertificateError(f"the authority does not offer {' or '.join(wanted)} for {name}")

    @asynccontextmanager
    async def shown(self, kind: str, name: str, token: str, answer: str) -> AsyncIterator[None]:
        """While the block runs the authority finds `answer`: at the token's path, or in the name's TXT record."""
        if kind == HTTP:
            await self._edge.set_challenge(token, answer)
            try:
                yield
            finally:
                await _tidy(name, self._edge.remove_challenge(token))
            return
        records = await asyncio.to_thread(_records_of, self._config)
        assert records is not None, "kind() chose what is not set up"
        record = f"_acme-challenge.{name.removeprefix('*.')}"
        try:
            await records.add(record, answer)
            yield
        finally:
            await _tidy(name, records.remove(record, answer))

    async def settle(self, kinds: set[str]) -> None:
        """Give the records time to reach all name servers."""
        if DNS in kinds:
            await asyncio.sleep(self._config.dns_wait)


def _records_of(config: AcmeConfig) -> Records | None:
    """Loaded only where it is used."""
    from paasd.route.acme.dns import records_of

    return records_of(config)


async def _tidy(name: str, work: Coroutine[object, object, None]) -> None:
    """What is left over is of no use to anybody, so it must not spoil what came of it."""
    try:
        await asyncio.shield(work)
    except PaasdError as error:
        _log.warning("the answer to the challenge for %s stays: %s", name, error.detail)
