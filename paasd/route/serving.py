"""Makes the edge serve what the database says: a certificate for each host name, and who is sent on to HTTPS.

Owns nothing: `certificates.py` has the rows, `edge_tls.py` what Nginx knows."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import x509

from paasd.apps import Apps
from paasd.config import HttpConfig
from paasd.database import now
from paasd.errors import PaasdError
from paasd.models import App
from paasd.route.certificates import Certificates, Source, StoredCertificate, choose
from paasd.route.domains import Domains, Names
from paasd.route.edge_tls import EdgeTls, Served
from paasd.route.sites import tls_addresses
from paasd.tls_settings import TlsChoices, TlsSettings

_log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT = 5.0


@dataclass(frozen=True)
class AppTls:
    """What an app's host names are served with."""

    chosen: Mapping[str, StoredCertificate]
    redirects: tuple[str, ...]


class Serving:
    def __init__(
        self,
        http: HttpConfig,
        apps: Apps,
        domains: Domains,
        certificates: Certificates,
        settings: TlsSettings,
        edge: EdgeTls,
        clock: Callable[[], float] = now,
    ) -> None:
        self._http = http
        self._listens = bool(tls_addresses(http))
        self._apps = apps
        self._domains = domains
        self._certificates = certificates
        self._settings = settings
        self._edge = edge
        self._clock = clock
        self._syncing = asyncio.Lock()
        self._idle = False
        """There is no certificate, and the edge knows."""
        self._known: dict[str, Served] = {}
        """What was opened before, by id; their keys are sealed, and unsealing all of them each time is not free."""

    async def of(self, app: App) -> AppTls:
        names = await self._domains.names(app)
        return self._decide(names, await self._certificates.of(app), await self._settings.of(app))

    async def sync(self) -> None:
        """Make the edge equal the database. A certificate whose key cannot be opened keeps no other from being
        served."""
        async with self._syncing:
            stored: dict[str, list[StoredCertificate]] = {}
            # Without HTTPS nobody may be sent on to it, whatever there is.
            for certificate in await self._certificates.all() if self._listens else ():
                stored.setdefault(certificate.app_id, []).append(certificate)
            if self._idle and not stored:
                return
            served, redirects = [], {}
            for app in await self._apps.all() if stored else []:
                if own := stored.get(app.id):
                    settings = await self._settings.of(app)
                    decided = self._decide(await self._domains.names(app), own, settings)
                    served += await self._served(decided.chosen, settings.min_version)
                    redirects[app.name] = decided.redirects
            self._known = {each.id: each for each in served}
            await self._edge.sync(served, redirects)
            self._idle = not stored

    async def differences(self) -> list[str]:
        """Where the edge is not as the database says."""
        live, wanted = await self._edge.certificates(), {}
        for app in await self._apps.all():
            for host, certificate in (await self.of(app)).chosen.items() if self._listens else ():
                wanted[certificate.id] = host
        found = [f"the certificate {id} of {host} is not served" for id, host in wanted.items() if id not in live]
        return found + [f"the certificate {id} is served, but not wanted" for id in sorted(live - wanted.keys())]

    async def is_served(self, certificate: StoredCertificate, host: str) -> bool:
        """Whether our own edge shows it to a client that asks for the host name."""
        if not self._listens:
            return True
        shown = await self._shown(host)
        return shown is not None and shown == certificate.leaf

    def _decide(self, names: Names, certificates: list[StoredCertificate], settings: TlsChoices) -> AppTls:
        at = self._clock()
        chosen = choose(certificates, names.secured, at)
        # What is sent elsewhere anyway goes there straight.
        found = [(host, chosen[host]) for host in names.answered if host in chosen]
        redirects = [host for host, each in found if each.is_valid(at) and _redirected(each, settings)]
        return AppTls(chosen, tuple(redirects))

    async def _served(self, chosen: Mapping[str, StoredCertificate], least: str) -> list[Served]:
        hosts: dict[str, list[str]] = {}
        by_id = {each.id: each for each in chosen.values()}
        for host, certificate in chosen.items():
            hosts.setdefault(certificate.id, []).append(host)
        found = []
        for id, names in hosts.items():
            try:
                pem = self._known[id].pem if id in self._known else await self._certificates.pem(by_id[id])
                found.append(Served(id, tuple(names), pem, least))
            except PaasdError as error:
                _log.error("the certificate %s for %s is not served: %s", id, " ".join(names), error.detail)
        return found

    async def _shown(self, host: str) -> x509.Certificate | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._http.address, self._http.address)
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                _, writer = await asyncio.open_connection(
                    address, self._http.https_port, ssl=context, server_hostname=host.replace("*", "paasd-check")
                )
        except (OSError, TimeoutError):
            return None
        try:
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(der) if der else None
        finally:
            writer.transport.abort()


def _redirected(certificate: StoredCertificate, settings: TlsChoices) -> bool:
    """By default not to one of the box's own authority, which browsers know only where somebody told them."""
    return certificate.source is not Source.LOCAL if settings.redirect is None else settings.redirect
