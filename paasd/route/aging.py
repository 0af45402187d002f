"""What happens to a certificate as it grows old: the authority is asked when to renew it, people are told that it was
not renewed, and long after its end it is forgotten."""

from __future__ import annotations

import logging
from collections.abc import Callable

from paasd.errors import CertificateError
from paasd.models import App
from paasd.route import pem
from paasd.route.acme import rules
from paasd.route.acme.authority import Authority
from paasd.route.certificates import Certificates, Source, StoredCertificate
from paasd.route.serving import Serving
from paasd.route.troubles import Troubles

_log = logging.getLogger(__name__)

_KEPT_EXPIRED = 30 * rules.DAY
_ASK_AGAIN = 6 * 3600.0


class Aging:
    def __init__(
        self,
        certificates: Certificates,
        troubles: Troubles,
        serving: Serving,
        authority: Authority,
        clock: Callable[[], float],
    ) -> None:
        self._certificates = certificates
        self._troubles = troubles
        self._serving = serving
        self._authority = authority
        self._clock = clock

    async def look(self, app: App, certificate: StoredCertificate) -> None:
        """Once in a while at each."""
        await self._alarm(app, certificate)
        await self._forget(app, certificate)

    def is_ours(self, certificate: StoredCertificate) -> bool:
        """Not of a directory that the box used before: those run out, and are replaced at once."""
        return certificate.source is not Source.ACME or certificate.directory == self._authority.directory

    async def ask(self, certificate: StoredCertificate) -> bool:
        """Ask the authority when to renew a certificate, as often as it wants to be asked (RFC 9773). False when it
        gave no answer."""
        # Weeks ahead was written down when the clock was wrong.
        asked_enough = certificate.ask_after is not None and 0 < certificate.ask_after - self._clock() < 7 * rules.DAY
        if certificate.source is not Source.ACME or not self.is_ours(certificate) or asked_enough:
            return True
        if not certificate.is_valid(self._clock()):
            return True
        try:
            wanted, again = await self._authority.renewal_time(certificate.chain)
        except CertificateError as error:
            _log.warning("the authority was asked when to renew %s: %s", certificate.id, error.detail)
            await self._certificates.set_renewal(certificate, certificate.renew_at, self._clock() + _ASK_AGAIN)
            return False
        await self._certificates.set_renewal(certificate, wanted, again)
        return True

    async def _alarm(self, app: App, certificate: StoredCertificate) -> None:
        """Once, when a sixth of the lifetime is left of one that is in use."""
        if certificate.alarmed_at or self._clock() < rules.alarm_at(certificate.starts_at, certificate.ends_at):
            return
        chosen = (await self._serving.of(app)).chosen
        if not any(each.id == certificate.id for each in chosen.values()):
            return
        troubles = await self._troubles.of(app)
        problems = {troubles[name].problem for name in certificate.names if name in troubles}
        _log.error("the certificate of %s ends on %s", ", ".join(certificate.names), pem.day(certificate.ends_at))
        await self._certificates.alarm(app, certificate, "; ".join(problems)[:1000])

    async def _forget(self, app: App, certificate: StoredCertificate) -> None:
        """What has expired long ago and serves no name."""
        if self._clock() > certificate.ends_at + _KEPT_EXPIRED:
            if all(each.id != certificate.id for each in (await self._serving.of(app)).chosen.values()):
                await self._certificates.remove("paasd", app, certificate, "certificate.removed")
