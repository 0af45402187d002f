"""Certificates of an app, and how it is served over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.shapes import instant
from paasd.app_sites import AppSites
from paasd.database import now
from paasd.identity.policy import Action
from paasd.route import ocsp, pem
from paasd.route.acme.rules import Trouble
from paasd.route.certificates import Certificates, Source, StoredCertificate
from paasd.route.domains import Domains
from paasd.route.issuing import Issuing
from paasd.route.serving import Serving
from paasd.route.stapling import StapleState, Stapling
from paasd.tls_settings import KEYS, TlsSettings

_REVOKED = "its authority has revoked the certificate; get another one"


class NewCertificate(Body):
    pem: str
    """Private key and chain."""


class CertificateOrder(Body):
    anew: bool = False
    """Also for names that have a good one."""


class TlsSettingsChange(Body):
    settings: dict[str, str | None]


class CertificatesResource:
    def __init__(
        self,
        certificates: Certificates,
        domains: Domains,
        settings: TlsSettings,
        serving: Serving,
        issuing: Issuing,
        stapling: Stapling,
        sites: AppSites,
    ) -> None:
        self._certificates = certificates
        self._domains = domains
        self._settings = settings
        self._serving = serving
        self._issuing = issuing
        self._stapling = stapling
        self._sites = sites

    def operations(self) -> Sequence[Operation]:
        path, one, tls = "/apps/{app}/certificates", "/apps/{app}/certificates/{id}", "/apps/{app}/tls"
        read, change = Action.APP_READ, Action.APP_CONFIGURE
        return [
            Operation("GET", path, read, self.listing, "List certificates, newest first"),
            Operation("POST", path, change, self.import_, "Import a certificate with its key", NewCertificate),
            Operation(
                "POST",
                f"{path}/order",
                change,
                self.order,
                "Get certificates by itself from now on, and now; with `anew` for all names",
                CertificateOrder,
                streams=True,
            ),
            Operation("POST", f"{one}/revoke", change, self.revoke, "Have the authority declare one void"),
            Operation("GET", "/certificate-authority", read, self.root, "Root of the box's own authority, in PEM"),
            Operation("GET", one, read, self.info, "One certificate"),
            Operation("DELETE", one, change, self.remove, "Serve and keep a certificate no more"),
            Operation("GET", f"{one}/chain", read, self.chain, "A certificate's chain in PEM, leaf first"),
            Operation("GET", tls, read, self.report, "How the app is served over TLS, and which name has what"),
            Operation("PATCH", tls, change, self.change, "Set and unset (null) TLS settings", TlsSettingsChange),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        chosen = (await self._serving.of(call.app)).chosen
        found = await self._certificates.of(call.app)
        return {"items": [certificate_shape(each, [h for h, c in chosen.items() if c == each]) for each in found]}

    async def import_(self, call: Call) -> dict[str, Any]:
        domains = (await self._domains.names(call.app)).secured
        bundle = await asyncio.to_thread(_checked, call.body.pem, domains)
        added = await self._certificates.add(call.actor.name, call.app, Source.IMPORTED, bundle)
        await self._serving.sync()
        uncovered = [domain for domain in domains if not pem.covers(added.names, domain)]
        return {**await self._shape(call, added), "uncovered": uncovered}

    async def order(self, call: Call) -> dict[str, Any]:
        if call.body.anew:
            await self._issuing.renew(call.app, call.progress)
        else:
            await self._issuing.enable(call.actor, call.app, call.progress)
        return await self.report(call)

    async def revoke(self, call: Call) -> dict[str, Any]:
        certificate = await self._certificates.get(call.app, call.request.match_info["id"])
        await self._issuing.revoke(call.actor, call.app, certificate)
        return certificate_shape(certificate, [])

    async def root(self, call: Call) -> web.Response:
        return web.Response(text=await self._issuing.local_root(), content_type="application/x-pem-file")

    async def info(self, call: Call) -> dict[str, Any]:
        certificate = await self._certificates.get(call.app, call.request.match_info["id"])
        state = await self._stapling.of(certificate)
        return {**await self._shape(call, certificate), **_staple_shape(certificate, state)}

    async def remove(self, call: Call) -> dict[str, Any]:
        certificate = await self._certificates.get(call.app, call.request.match_info["id"])
        await self._certificates.remove(call.actor.name, call.app, certificate, "certificate.removed")
        await self._serving.sync()
        return certificate_shape(certificate, [])

    async def chain(self, call: Call) -> web.Response:
        certificate = await self._certificates.get(call.app, call.request.match_info["id"])
        return web.Response(text=certificate.chain, content_type="application/x-pem-file")

    async def report(self, call: Call) -> dict[str, Any]:
        tls, hosts = await self._serving.of(call.app), (await self._domains.names(call.app)).secured
        troubles, unserved = await self._issuing.troubles(call.app), (await self._issuing.wanted(call.app)).unserved
        revoked = await self._stapling.revoked(tls.chosen.values())
        void = {host: _REVOKED for host, certificate in tls.chosen.items() if certificate.id in revoked}
        return {
            "settings": {
                key: {**value, "description": KEYS[key].description}
                for key, value in (await self._settings.report(call.app)).items()
            },
            "names": [
                _name_shape(host, tls.chosen.get(host), host in tls.redirects)
                | _trouble_shape(host, troubles, {**unserved, **void})
                for host in hosts
            ],
        }

    async def change(self, call: Call) -> dict[str, Any]:
        changes: dict[str, str | None] = call.body.settings

        async def change() -> dict[str, str | None]:
            before = await self._settings.stored(call.app)
            await self._settings.change(call.actor, call.app, changes)
            return {key: before.get(key) for key in changes}

        await self._sites.change(
            call.app,
            change,
            lambda old: self._settings.put_back(call.actor, call.app, old),
            self._serving.sync,
        )
        return await self.report(call)

    async def _shape(self, call: Call, certificate: StoredCertificate) -> dict[str, Any]:
        chosen = (await self._serving.of(call.app)).chosen
        return certificate_shape(certificate, [host for host, each in chosen.items() if each.id == certificate.id])


def _checked(text: str, domains: Sequence[str]) -> pem.Bundle:
    return pem.checked(pem.read(text), domains, now())


def certificate_shape(certificate: StoredCertificate, hosts: Sequence[str]) -> dict[str, Any]:
    facts = pem.facts(certificate.leaf)
    return {
        "id": certificate.id,
        "source": certificate.source.value,
        "names": list(certificate.names),
        "serves": list(hosts),
        "valid": certificate.is_valid(now()),
        "starts_at": instant(certificate.starts_at),
        "ends_at": instant(certificate.ends_at),
        "renew_at": instant(certificate.renew_at),
        **facts,
        "created_by": certificate.created_by,
        "created_at": instant(certificate.created_at),
    }


def _staple_shape(certificate: StoredCertificate, state: StapleState) -> dict[str, Any]:
    required = ocsp.must_staple(certificate.leaf)
    problem = state.problem
    if required and state.until is None:
        problem += "; the certificate demands a staple (Must-Staple), and browsers that heed it refuse it without one"
    return {
        "staple_until": instant(state.until),
        "staple_problem": problem or None,
        "staple_ask_at": instant(state.ask_at),
        "must_staple": required,
        "revoked_at": instant(state.revoked_at),
    }


def _name_shape(host: str, certificate: StoredCertificate | None, redirected: bool) -> dict[str, Any]:
    return {
        "name": host,
        "certificate": certificate.id if certificate else None,
        "source": certificate.source.value if certificate else None,
        "valid": bool(certificate and certificate.is_valid(now())),
        "ends_at": instant(certificate.ends_at) if certificate else None,
        "redirect": redirected,
    }


def _trouble_shape(host: str, troubles: Mapping[str, Trouble], unserved: Mapping[str, str]) -> dict[str, Any]:
    found = next((each for name, each in troubles.items() if pem.covers((name,), host)), None)
    problem = found.problem if found else unserved.get(host)
    return {"problem": problem, "retry_at": instant(found.retry_at) if found else None}
