"""The box's own authority, for names that no public one gives certificates for.

Its root is limited to such names (RFC 5280 name constraints): whoever trusts it does not trust the box with the rest of
the internet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paasd.database import now
from paasd.errors import PaasdError
from paasd.models import Secret
from paasd.route import pem
from paasd.route.authority_keys import AuthorityKey, AuthorityKeys
from paasd.route.keys import new_key

_log = logging.getLogger(__name__)

LOCAL_SUFFIXES = ("lan", "local", "localhost", "internal", "home.arpa", "test")
"""Reserved for use within a network (RFC 2606, 6761, 6762, 8375; ICANN for `internal`), or used so for ages."""
_NAME = "local"
_ROOT_DAYS, _LEAF_DAYS = 3650, 90
_EARLIER = timedelta(hours=1)
"""Certificates begin so long before now, for clients whose clocks are slow."""


def is_local(name: str) -> bool:
    return any(name == suffix or name.endswith(f".{suffix}") for suffix in LOCAL_SUFFIXES)


class LocalAuthority:
    def __init__(self, keys: AuthorityKeys, clock: Callable[[], float] = now) -> None:
        self._keys = keys
        self._clock = clock
        self._making = asyncio.Lock()

    async def root(self) -> str:
        """PEM of the root, which is made when it is first asked for."""
        return (await self._own()).certificate

    async def issue(self, names: Sequence[str], key_type: str) -> pem.Bundle:
        """A certificate for local names."""
        own = await self._own()
        return await asyncio.to_thread(_leaf, own, names, key_type, self._now())

    async def _own(self) -> AuthorityKey:
        async with self._making:
            found = await self._keys.get(_NAME)
            if found is None or not _is_good(found, self._now()):
                if found:
                    _log.error(
                        "the box's own root was made under a wrong clock, or ends soon: here is a new one to trust"
                    )
                found = await asyncio.to_thread(_new_root, self._now())
                await self._keys.put(found)
            return found

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _is_good(own: AuthorityKey, at: datetime) -> bool:
    """Whether it is valid now, and for as long as what it signs."""
    root = x509.load_pem_x509_certificate(own.certificate.encode())
    return root.not_valid_before_utc <= at and at + timedelta(days=_LEAF_DAYS) < root.not_valid_after_utc


def _new_root(at: datetime) -> AuthorityKey:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"paasd local authority {at:%Y-%m-%d}")])
    permitted = [x509.DNSName(suffix) for suffix in LOCAL_SUFFIXES]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), at, _ROOT_DAYS)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return AuthorityKey(_NAME, Secret(pem.key_pem(key)), certificate=pem.pem_of(certificate))


def _leaf(own: AuthorityKey, names: Sequence[str], key_type: str, at: datetime) -> pem.Bundle:
    root = x509.load_pem_x509_certificate(own.certificate.encode())
    signer = serialization.load_pem_private_key(own.key.reveal().encode(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise PaasdError("the key of the box's own authority is damaged")
    key = new_key(key_type)
    # Without a name of its own, so that only the names below count (RFC 6125); that extension is critical then.
    certificate = (
        _builder(x509.Name([]), root.subject, key.public_key(), at, _LEAF_DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return pem.Bundle(key, (certificate,))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: pem.PublicKey, at: datetime, days: int
) -> x509.CertificateBuilder:
    end = at + timedelta(days=days)
    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), at - _EARLIER, end)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
