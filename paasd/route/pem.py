"""Keys and chains of certificates: reading PEM, putting a chain in order, and saying what is wrong with one.

Pure but for the host's own list of roots. Nothing here raises anything but InvalidInput."""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from paasd.errors import InvalidInput
from paasd.models import Secret

ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
_MAX_TEXT = 256 * 1024
_MAX_CERTIFICATES = 10
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CURVES = ("secp256r1", "secp384r1")
_SLOW_CLOCK = 60.0
"""Seconds that our clock may be behind that of an authority."""
_LEAST_RSA, _MOST_RSA = 2048, 8192
_HOW = "Give the key and the chain in PEM, leaf first: certs:import APP < key-and-chain.pem"

Certificate = x509.Certificate
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True)
class Bundle:
    """A key with its chain, leaf first, the root left out."""

    key: PrivateKey
    chain: tuple[Certificate, ...]

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.leaf)

    @property
    def key_pem(self) -> Secret:
        return Secret(key_pem(self.key))

    @property
    def chain_pem(self) -> str:
        return "".join(pem_of(certificate) for certificate in self.chain)


def pem_of(certificate: Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: PrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def names_of(certificate: Certificate) -> tuple[str, ...]:
    """Its DNS names, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(dict.fromkeys(name.lower() for name in found.get_values_for_type(x509.DNSName)))


def covers(patterns: Collection[str], host: str) -> bool:
    """Whether a certificate for these names is one for the host: a wildcard stands for one label."""
    _, _, parent = host.partition(".")
    return host in patterns or (not host.startswith("*.") and f"*.{parent}" in patterns)


def validity(certificate: Certificate) -> tuple[float, float]:
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def read_chain(text: str) -> tuple[Certificate, ...]:
    """Certificates of a text in their order."""
    certificates = []
    for match in _BLOCK.finditer(_bounded(text)):
        if match[1] == "CERTIFICATE":
            try:
                certificates.append(x509.load_pem_x509_certificate(match[0].encode()))
            except (ValueError, UnsupportedAlgorithm) as error:
                raise InvalidInput(f"certificate {len(certificates) + 1} cannot be read: {error}", hint=_HOW) from None
    if len(certificates) > _MAX_CERTIFICATES:
        raise InvalidInput(f"a chain has at most {_MAX_CERTIFICATES} certificates", hint=_HOW)
    return tuple(certificates)


def read(text: str) -> Bundle:
    """Key and chain of one text, the chain in order. Its lifetime, names and completeness are not looked at."""
    certificates, key = read_chain(text), _read_key(text)
    if not certificates:
        raise InvalidInput("there is no certificate in what was given", hint=_HOW)
    return Bundle(key, in_order(key, certificates))


def in_order(key: PrivateKey, certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """The key's certificate first, each followed by its issuer's."""
    rest = list(dict.fromkeys(certificates))
    leaf = next((each for each in rest if _public(each) == _public(key)), None)
    if leaf is None:
        subjects = ", ".join(shown_name(each.subject) for each in rest)
        raise InvalidInput(f"the key belongs to none of the certificates ({subjects})", hint=_HOW)
    chain = [leaf]
    rest.remove(leaf)
    while (above := next((each for each in rest if issued_by(chain[-1], each)), None)) is not None:
        chain.append(above)
        rest.remove(above)
    if rest:
        raise InvalidInput(
            f"the certificate {shown_name(rest[0].subject)} is not part of the chain of {shown_name(leaf.subject)}",
            hint=f"The next one must be that of its issuer, {shown_name(chain[-1].issuer)}.",
        )
    return tuple(chain)


def without_root(chain: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Clients have the root already; one that signed itself is all there is."""
    return tuple(chain[:-1]) if len(chain) > 1 and issued_by(chain[-1], chain[-1]) else tuple(chain)


def checked(bundle: Bundle, domains: Iterable[str], now: float, *, whole: bool = True) -> Bundle:
    """The bundle without its root, ready to be served. `whole`: the chain must lead to a root that is part of it or
    that the host knows. Raises InvalidInput with the reason that it cannot be."""
    _check_dates(bundle.chain, now)
    for certificate in bundle.chain:
        _check_strength(certificate)
    _check_use(bundle.leaf)
    wanted = list(domains)
    if not any(covers(bundle.names, domain) for domain in wanted):
        raise InvalidInput(
            f"the certificate is for {', '.join(bundle.names) or 'no host name'}; the app has {', '.join(wanted)}",
            hint="Add the domain first: domains:add APP NAME",
        )
    last = bundle.chain[-1]
    if whole and not issued_by(last, last) and last.issuer.public_bytes() not in known_roots():
        raise InvalidInput(
            f"the chain is not complete: the certificate of {shown_name(last.issuer)} is missing",
            hint="Append it, also if it is a private root; your authority offers it as chain or bundle.",
        )
    return Bundle(bundle.key, without_root(bundle.chain))


def issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def shown_name(name: x509.Name) -> str:
    return name.rfc4514_string() or "without a name"


@functools.lru_cache(maxsize=1)
def known_roots() -> frozenset[bytes]:
    """Subjects of the host's roots. Each by itself: there are old ones that the library objects to."""
    try:
        text = ROOTS.read_text(errors="replace")
    except OSError:
        return frozenset()
    found = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for match in _BLOCK.finditer(text):
            with contextlib.suppress(ValueError, UnsupportedAlgorithm):
                found.add(x509.load_pem_x509_certificate(match[0].encode()).subject.public_bytes())
    return frozenset(found)


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise InvalidInput(f"that is {len(text)} characters; keys and chains have a few thousand", hint=_HOW)
    return text


def _read_key(text: str) -> PrivateKey:
    found = [match for match in _BLOCK.finditer(_bounded(text)) if match[1].endswith("PRIVATE KEY")]
    if len(found) != 1:
        said = "no private key" if not found else f"{len(found)} private keys"
        raise InvalidInput(f"there is {said} in what was given", hint=_HOW)
    try:
        return check_key(serialization.load_pem_private_key(found[0][0].encode(), None))
    except TypeError:
        raise InvalidInput(
            "the private key is encrypted", hint="Decrypt it first: openssl pkey -in key.pem -out plain.pem"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"the private key cannot be read: {error}", hint=_HOW) from None


def check_key(key: PrivateKeyTypes) -> PrivateKey:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name in _CURVES:
            return key
        raise InvalidInput(f"browsers do not take the curve {key.curve.name}", hint="Use P-256.")
    if isinstance(key, rsa.RSAPrivateKey):
        if _LEAST_RSA <= key.key_size <= _MOST_RSA:
            return key
        raise InvalidInput(f"an RSA key of {key.key_size} bits is not within {_LEAST_RSA} to {_MOST_RSA}")
    raise InvalidInput(f"browsers take ECDSA and RSA keys, not {type(key).__name__.strip('_')}", hint="Use P-256.")


def _check_dates(chain: Sequence[Certificate], now: float) -> None:
    for certificate in chain:
        starts, ends = validity(certificate)
        if now >= ends:
            raise InvalidInput(f"the certificate {shown_name(certificate.subject)} has expired on {day(ends)}")
        if now < starts - _SLOW_CLOCK:
            raise InvalidInput(
                f"the certificate {shown_name(certificate.subject)} is not valid before {day(starts)}",
                hint="Is the clock of this machine right?",
            )


def _check_strength(certificate: Certificate) -> None:
    weak = isinstance(certificate.signature_hash_algorithm, hashes.MD5 | hashes.SHA1)
    if weak and not issued_by(certificate, certificate):
        raise InvalidInput(f"the certificate {shown_name(certificate.subject)} has a signature that browsers refuse")


def _check_use(leaf: Certificate) -> None:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    except ValueError as error:
        raise InvalidInput(f"the certificate's extensions cannot be read: {error}") from None
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses):
        raise InvalidInput("the certificate is not made for servers (extended key usage)")


def _public(holder: Certificate | PrivateKey) -> bytes:
    try:
        return holder.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm):
        return b""


def day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def facts(certificate: Certificate) -> dict[str, str]:
    """What people look for in a certificate."""
    key = certificate.public_key()
    kind = f"ECDSA {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__.strip("_")
    return {
        "issuer": shown_name(certificate.issuer),
        "serial": f"{certificate.serial_number:x}",
        "fingerprint": certificate.fingerprint(hashes.SHA256()).hex(":"),
        "key": f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey) else kind,
    }
