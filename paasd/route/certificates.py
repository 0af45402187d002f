"""Table `certificates`: the certificates of apps, their keys sealed; which of them a host name is served with."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

from paasd import events
from paasd.database import Database, Row, Transaction, now
from paasd.errors import NotFound
from paasd.models import App, Secret
from paasd.names import shown
from paasd.route import pem
from paasd.route.pem import Bundle
from paasd.secrets import Vault

_SLOW_CLOCK = 3600.0


class Source(StrEnum):
    """Where a certificate is from. Of two for one name that of the first source is served."""

    IMPORTED = "imported"
    ACME = "acme"
    LOCAL = "local"


@dataclass(frozen=True)
class StoredCertificate:
    id: str
    organization_id: str
    app_id: str
    source: Source
    directory: str
    """Of the ACME authority."""
    names: tuple[str, ...]
    chain: str
    starts_at: float
    ends_at: float
    renew_at: float | None
    """When the authority wants it to be renewed."""
    ask_after: float | None
    """When it may be asked about that again."""
    alarmed_at: float | None
    created_by: str
    created_at: float

    def is_valid(self, at: float) -> bool:
        """One that begins soon counts: clocks are never quite the same."""
        return self.starts_at - _SLOW_CLOCK <= at < self.ends_at

    @property
    def leaf(self) -> x509.Certificate:
        return pem.read_chain(self.chain)[0]


class Certificates:
    def __init__(self, database: Database, vault: Vault, clock: Callable[[], float] = now) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock

    async def of(self, app: App) -> list[StoredCertificate]:
        """Newest first."""
        rows = await self._database.fetch(
            "SELECT * FROM certificates WHERE app_id = ? AND organization_id = ? ORDER BY created_at DESC, id",
            app.id,
            app.organization_id,
        )
        return [_certificate(row) for row in rows]

    async def all(self) -> list[StoredCertificate]:
        """Of the whole box, newest first."""
        rows = await self._database.fetch("SELECT * FROM certificates ORDER BY created_at DESC, id")
        return [_certificate(row) for row in rows]

    async def get(self, app: App, id: str) -> StoredCertificate:
        """By its id or the beginning of it, as long as that is one's own. Raises NotFound."""
        found = [each for each in await self.of(app) if id and each.id.startswith(id)]
        if len(found) != 1:
            raise NotFound(f"{app.name} has no certificate {shown(id)}", hint=f"List them with: certs:list {app.name}")
        return found[0]

    async def pem(self, certificate: StoredCertificate) -> Secret:
        """Key and chain, as the edge takes them. Raises PaasdError when the master key is another one."""
        row = await self._database.fetch_one("SELECT private_key FROM certificates WHERE id = ?", certificate.id)
        if row is None:
            raise NotFound(f"the certificate {certificate.id} is gone")
        key = await asyncio.to_thread(self._vault.open, row["private_key"], _place(certificate))
        return Secret(key.reveal() + certificate.chain)

    async def add(
        self, actor: str, app: App, source: Source, bundle: Bundle, *, directory: str = "", replaces: str = ""
    ) -> StoredCertificate:
        """Keep a certificate that was checked. One of the same chain is not kept twice."""
        chain, key = bundle.chain_pem, bundle.key_pem
        for known in await self.of(app):
            if known.chain == chain and known.source == source:
                return known
        starts, ends = pem.validity(bundle.leaf)
        added = StoredCertificate(
            secrets.token_hex(6), app.organization_id, app.id, source, directory, bundle.names, chain, starts, ends,
            None, None, None, actor, self._clock(),
        )  # fmt: skip
        async with self._database.transaction() as tx:
            await tx.execute(
                "INSERT INTO certificates (id, organization_id, app_id, source, directory, names, chain, private_key,"
                " starts_at, ends_at, created_by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                added.id,
                added.organization_id,
                added.app_id,
                source,
                directory,
                json.dumps(added.names),
                chain,
                self._vault.seal(key, _place(added)),
                starts,
                ends,
                actor,
                added.created_at,
            )
            event = "certificate.imported" if source is Source.IMPORTED else "certificate.issued"
            await _record(tx, event, actor, app, added, source=source.value, replaces=replaces)
        return added

    async def remove(self, actor: str, app: App, certificate: StoredCertificate, event: str) -> None:
        async with self._database.transaction() as tx:
            if await tx.execute("DELETE FROM certificates WHERE id = ?", certificate.id):
                await _record(tx, event, actor, app, certificate)

    async def set_renewal(self, certificate: StoredCertificate, renew_at: float | None, ask_after: float) -> None:
        """What the authority said about when to renew."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE certificates SET renew_at = ?, ask_after = ? WHERE id = ?",
                renew_at,
                ask_after,
                certificate.id,
            )

    async def alarm(self, app: App, certificate: StoredCertificate, problem: str) -> None:
        """Once for each certificate: it ends soon, and there is no new one."""
        async with self._database.transaction() as tx:
            changed = await tx.execute(
                "UPDATE certificates SET alarmed_at = ? WHERE id = ? AND alarmed_at IS NULL",
                self._clock(),
                certificate.id,
            )
            if changed:
                await _record(tx, "certificate.expiring", "paasd", app, certificate, problem=problem)

    async def found_revoked(self, app: App, certificate: StoredCertificate, responder: str, at: float) -> None:
        """Its authority says so (OCSP)."""
        async with self._database.transaction() as tx:
            await _record(
                tx,
                "certificate.found-revoked",
                "paasd",
                app,
                certificate,
                responder=responder[:1000],
                revoked=pem.day(at),
            )


def choose(
    certificates: Iterable[StoredCertificate], hosts: Collection[str], at: float
) -> Mapping[str, StoredCertificate]:
    """Which certificate each host name of an app is served with: a valid one rather than an expired one, then by
    source, then the one that ends last. An expired one is served still: a client may choose to go on."""
    order = list(Source)
    ranked = sorted(certificates, key=lambda each: (not each.is_valid(at), order.index(each.source), -each.ends_at))
    found = {host: next((each for each in ranked if pem.covers(each.names, host)), None) for host in hosts}
    return {host: each for host, each in found.items() if each is not None}


async def _record(
    tx: Transaction, event: str, actor: str, app: App, certificate: StoredCertificate, **more: str
) -> None:
    await events.record(
        tx,
        event,
        organization_id=app.organization_id,
        actor=actor,
        app=app.name,
        certificate=certificate.id,
        names=" ".join(certificate.names),
        ends_at=certificate.ends_at,
        **more,
    )


def _certificate(row: Row) -> StoredCertificate:
    values = {name: row[name] for name in StoredCertificate.__dataclass_fields__}
    return StoredCertificate(**{**values, "names": tuple(json.loads(row["names"])), "source": Source(row["source"])})


def _place(certificate: StoredCertificate) -> str:
    return f"{certificate.organization_id}|{certificate.app_id}|certificate|{certificate.id}"
