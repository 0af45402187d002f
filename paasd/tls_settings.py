"""How an app is served over TLS: the family `tls` of the app's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from paasd.app_settings import AppSettings, Family, Key, one_of
from paasd.database import Database
from paasd.models import Actor, App

COMMAND = "tls:set"
_HSTS = re.compile(r"(?:max-age=)?([0-9]{1,10})((?:\s*;\s*(?:includeSubDomains|preload))*)", re.IGNORECASE)
_DEFAULT_HSTS = "max-age=2592000"
"""A month, this host name alone: long enough to help, short enough to get out of."""
_MAX_CLIENT_CA = 64 * 1024


def _hsts(value: str) -> str:
    """In the header's own form, `off` for none."""
    text = value.strip()
    if text.lower() == "off":
        return "off"
    found = _HSTS.fullmatch(text)
    if not found:
        raise ValueError("off, or seconds such as 31536000, followed by ; includeSubDomains and ; preload if wanted")
    more = found[2].lower()
    flags = [flag for flag in ("includeSubDomains", "preload") if flag.lower() in more]
    return "; ".join((f"max-age={int(found[1])}", *flags))


def _client_ca(value: str) -> str:
    """Certificates in their usual form, without what lies between them."""
    what = "certificates of authorities in PEM: tls:set APP client-ca < ca.pem"
    if len(value) > _MAX_CLIENT_CA:
        raise ValueError(what)
    try:
        found = x509.load_pem_x509_certificates(value.encode())
    except ValueError:
        raise ValueError(what) from None
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in found)


KEYS: Mapping[str, Key] = {
    "automatic": Key(
        one_of("on", "off"), "Whether certificates are got by themselves: from ACME, for local names from this box."
    ),
    "min-version": Key(one_of("1.2", "1.3"), "Oldest version of TLS that clients may speak."),
    "redirect": Key(one_of("on", "off"), "Whether plain HTTP is sent on to HTTPS where there is a valid certificate."),
    "hsts": Key(_hsts, "Strict-Transport-Security: seconds, with includeSubDomains and preload only if you say so."),
    "key-type": Key(one_of("ecdsa", "rsa"), "Keys of new certificates."),
    "challenge": Key(one_of("http-01", "dns-01"), "How the ACME authority is shown that names are ours."),
    "wildcard": Key(one_of("on", "off"), "One certificate for all names below the same parent; needs dns-01."),
    "client-ca": Key(_client_ca, "Authorities (PEM) that clients need a certificate of; others are refused."),
}
_DEFAULTS = {
    "automatic": "",
    "min-version": "1.3",
    "redirect": "",
    "hsts": _DEFAULT_HSTS,
    "key-type": "ecdsa",
    "challenge": "",
    "wildcard": "off",
    "client-ca": "",
}


@dataclass(frozen=True)
class TlsChoices:
    automatic: bool | None
    """None: nobody said."""
    min_version: str
    redirect: bool | None
    hsts: str
    """The header's value; empty for none."""
    key_type: str
    challenge: str
    """Empty: what each name needs."""
    wildcard: bool
    client_ca: str


class TlsSettings:
    def __init__(self, database: Database) -> None:
        self._settings = AppSettings(database, Family("tls", COMMAND, "TLS setting", KEYS))

    async def of(self, app: App) -> TlsChoices:
        values = {**_DEFAULTS, **await self._settings.get(app)}
        return TlsChoices(
            automatic=_switch(values["automatic"]),
            min_version=values["min-version"],
            redirect=_switch(values["redirect"]),
            hsts="" if values["hsts"] == "off" else values["hsts"],
            key_type=values["key-type"],
            challenge=values["challenge"],
            wildcard=values["wildcard"] == "on",
            client_ca=values["client-ca"],
        )

    async def report(self, app: App) -> dict[str, dict[str, str]]:
        """Value and origin by key."""
        own = await self._settings.get(app)
        return {
            key: {"value": own.get(key, _DEFAULTS[key]), "origin": COMMAND if key in own else "default"} for key in KEYS
        }

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None]) -> None:
        """All changes or none; None or an empty value takes a setting away. Raises InvalidInput."""
        await self._settings.change(actor, app, changes)

    async def stored(self, app: App) -> dict[str, str]:
        """What was set, by key."""
        return await self._settings.get(app)

    async def put_back(self, actor: Actor, app: App, stored: Mapping[str, str | None]) -> None:
        """What was stored before a change that is undone, as it was."""
        await self._settings.put_back(actor, app, stored)


def _switch(value: str) -> bool | None:
    return {"on": True, "off": False}.get(value)
