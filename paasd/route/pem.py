"""Keys and chains of certificates: reading PEM, putting a chain in order, and saying what is wrong with one.

Pure but for the host's own list of roots. Nothing here raises anything but InvalidInput."""

from __future__ import annotations

import base64
import contextlib
import functools
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from paasd.errors import InvalidInput
from paasd.models import Secret

ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
_MAX_TEXT = 32 * 1024
_MAX_KEY = 8 * 1024
"""An RSA key of 8192 bits has 6400 characters."""
_MAX_CERTIFICATES = 10
_BEGIN, _MAX_LABEL = "-----BEGIN ", 40
_KEY_KINDS = (bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a8648ce3d0201"))
"""rsaEncryption and ecPublicKey, in DER."""
_MAX_EXPONENT = 2**64
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
    found = [block for label, block in _blocks(_bounded(text)) if label == "CERTIFICATE"]
    if len(found) > _MAX_CERTIFICATES:
        raise InvalidInput(f"a chain has at most {_MAX_CERTIFICATES} certificates, not {len(found)}", hint=_HOW)
    certificates: list[Certificate] = []
    for block in found:
        try:
            certificates.append(x509.load_pem_x509_certificate(block.encode()))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(f"certificate {len(certificates) + 1} cannot be read: {error}", hint=_HOW) from None
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
        for label, block in _blocks(text):
            with contextlib.suppress(ValueError, UnsupportedAlgorithm):
                if label == "CERTIFICATE":
                    found.add(x509.load_pem_x509_certificate(block.encode()).subject.public_bytes())
    return frozenset(found)


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise InvalidInput(f"that is {len(text)} characters; keys and chains have a few thousand", hint=_HOW)
    return text


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Label and text of each block of PEM, in time that grows with the text and no faster."""
    for piece in text.split(_BEGIN)[1:]:
        label, _, rest = piece.partition("-----")
        end = rest.find(last := f"-----END {label}-----") if len(label) <= _MAX_LABEL else -1
        if end >= 0:
            yield label, f"{_BEGIN}{label}-----{rest[:end]}{last}"


def _read_key(text: str) -> PrivateKey:
    found = [block for label, block in _blocks(_bounded(text)) if label.endswith("PRIVATE KEY")]
    if len(found) != 1:
        said = "no private key" if not found else f"{len(found)} private keys"
        raise InvalidInput(f"there is {said} in what was given", hint=_HOW)
    if len(found[0]) > _MAX_KEY:
        raise InvalidInput(f"the private key has {len(found[0])} characters, more than {_MAX_KEY}", hint=_HOW)
    _check_kind(found[0])
    try:
        # Full validation looks for primes without letting go of the interpreter: seconds for a key made to that end.
        return check_key(
            serialization.load_pem_private_key(found[0].encode(), None, unsafe_skip_rsa_key_validation=True)
        )
    except TypeError:
        raise InvalidInput(
            "the private key is encrypted", hint="Decrypt it first: openssl pkey -in key.pem -out plain.pem"
        ) from None
    except (ValueError, UnsupportedAlgorithm, InternalError) as error:
        raise InvalidInput(f"the private key cannot be read: {error}", hint=_HOW) from None


def _check_kind(block: str) -> None:
    """Before it is loaded: for a key of DSA made to that end even that takes seconds."""
    label, _, body = block.removeprefix(_BEGIN).partition("-----")
    if label == "PRIVATE KEY":
        try:
            start = base64.b64decode("".join(body.partition("-----")[0].split())[:64])[:24]
        except ValueError as error:
            raise InvalidInput(f"the private key cannot be read: {error}", hint=_HOW) from None
        known = any(kind in start for kind in _KEY_KINDS)
    else:
        known = label in ("RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
    if not known:
        raise InvalidInput("browsers take ECDSA and RSA keys, and this one is neither", hint="Use P-256.")


def check_key(key: PrivateKeyTypes) -> PrivateKey:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name in _CURVES:
            return key
        raise InvalidInput(f"browsers do not take the curve {key.curve.name}", hint="Use P-256.")
    if isinstance(key, rsa.RSAPrivateKey):
        if not _LEAST_RSA <= key.key_size <= _MOST_RSA:
            raise InvalidInput(f"an RSA key of {key.key_size} bits is not within {_LEAST_RSA} to {_MOST_RSA}")
        _check_rsa(key)
        return key
    raise InvalidInput(f"browsers take ECDSA and RSA keys, not {type(key).__name__.strip('_')}", hint="Use P-256.")


def _check_rsa(key: rsa.RSAPrivateKey) -> None:
    """That its parts belong together, by a signature; before that, that making one is no long work."""
    parts = key.private_numbers()
    public = parts.public_numbers
    proper = parts.p % 2 and parts.q % 2 and min(parts.p, parts.q) > 1 and parts.p * parts.q == public.n
    least = parts.dmp1 < parts.p and parts.dmq1 < parts.q and parts.iqmp < parts.p and parts.d < public.n
    try:
        if not proper or not least or public.e >= _MAX_EXPONENT:
            raise ValueError
        signature = key.sign(b"paasd", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"paasd", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature, InternalError):
        raise InvalidInput("the parts of the RSA key do not belong together", hint=_HOW) from None


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
