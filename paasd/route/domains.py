"""Table `domains`: host names of apps, unique on the box."""

from __future__ import annotations

import ipaddress
import json
import re

from paasd import events
from paasd.config import HttpConfig
from paasd.database import Database, now
from paasd.errors import AlreadyExists, InvalidInput, NotFound
from paasd.gateway.policy import BODY, Gateway, policy_text
from paasd.models import Actor, App, Site
from paasd.names import shown
from paasd.route.pem import covers
from paasd.route.sites import tls_addresses
from paasd.tls_settings import TlsSettings

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Domains:
    def __init__(self, database: Database, http: HttpConfig) -> None:
        self._database = database
        self._http = http
        self._tls = TlsSettings(database)
        self._gateway = Gateway(database)

    def default(self, name: str) -> str:
        """Where an app is reached without any domain of its own."""
        return f"{name}.{self._http.domain}"

    async def of(self, app: App) -> list[str]:
        """All host names of an app, the default last."""
        rows = await self._database.fetch(
            "SELECT name FROM domains WHERE organization_id = ? AND app_id = ? ORDER BY created_at",
            app.organization_id,
            app.id,
        )
        return [*(row["name"] for row in rows), self.default(app.name)]

    async def url(self, app: App) -> str:
        """Over HTTPS once the host name has a certificate that browsers know, and as long as it is valid."""
        host = (await self.of(app))[0]
        rows = await self._database.fetch(
            "SELECT names FROM certificates WHERE app_id = ? AND source <> 'local' AND ends_at > ?", app.id, now()
        )
        secure = tls_addresses(self._http) and any(covers(json.loads(row["names"]), host) for row in rows)
        scheme, port, usual = ("https", self._http.https_port, 443) if secure else ("http", self._http.port, 80)
        return f"{scheme}://{host}" + (f":{port}" if port != usual else "")

    async def site(self, app: App) -> Site:
        tls, values = await self._tls.of(app), await self._gateway.values(app)
        return Site(
            app.name,
            tuple(await self.of(app)),
            hsts=tls.hsts,
            client_ca=tls.client_ca,
            body_size=values.get(BODY, ""),
            policy=policy_text(values),
        )

    async def add(self, actor: Actor, app: App, name: str) -> str:
        """Raises InvalidInput, or AlreadyExists when any app of the box has it. Returns the name as stored."""
        host = host_name(name)
        if host == self._http.domain or host.endswith(f".{self._http.domain}"):
            raise InvalidInput(
                f"{host} lies under the box's own domain, where each app already has its name",
                hint=f"{self.default(app.name)} is this app's; rename the app for another one.",
            )
        async with self._database.transaction() as tx:
            taken = await tx.fetch_one("SELECT app_id FROM domains WHERE name = ?", host)
            if taken:
                whose = "this app" if taken["app_id"] == app.id else "another app on this box"
                raise AlreadyExists(f"{host} already belongs to {whose}")
            await tx.execute("INSERT INTO domains VALUES (?, ?, ?, ?)", host, app.organization_id, app.id, now())
            await events.record(
                tx, "domain.added", organization_id=app.organization_id, actor=actor.name, app=app.name, domain=host
            )
        return host

    async def remove(self, actor: Actor, app: App, name: str) -> str:
        """Raises NotFound."""
        host = host_name(name)
        async with self._database.transaction() as tx:
            if not await tx.execute("DELETE FROM domains WHERE name = ? AND app_id = ?", host, app.id):
                raise NotFound(f"{app.name} has no domain {host}", hint=f"List them with: domains:list {app.name}")
            await events.record(
                tx, "domain.removed", organization_id=app.organization_id, actor=actor.name, app=app.name, domain=host
            )
        return host


def host_name(value: str) -> str:
    """Check and normalise a host name: labels of RFC 1123, international ones as IDNA A-labels, at most 253 characters,
    no wildcard, no address. Raises InvalidInput."""
    hint = "Use a host name such as www.example.org."
    text = value.strip().lower().removesuffix(".")
    try:
        host = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise InvalidInput(f"invalid host name {shown(value)}: {error}", hint=hint) from error
    labels = host.split(".")
    if len(host) > 253 or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels) or _is_address(host):
        raise InvalidInput(f"invalid host name {shown(value)}", hint=hint)
    return host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.rsplit(".", 1)[-1].isdigit()
    return True
