"""OCSP (RFC 6960): whom a certificate names for it, what is asked, and what an answer is worth. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from paasd.errors import CertificateError
from paasd.route import pem

_SLOW_CLOCK = 300.0
"""Seconds that our clock may be behind that of a responder."""
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_BAD = (ValueError, TypeError, AttributeError, InvalidSignature, UnsupportedAlgorithm, InternalError)


@dataclass(frozen=True)
class Answer:
    """What was said of a certificate, by who may say it."""

    der: bytes
    starts: float
    until: float
    revoked_at: float | None
    """None: it is good."""


@dataclass(frozen=True)
class Question:
    """A certificate that names a responder."""

    url: str
    leaf: x509.Certificate
    issuer: x509.Certificate

    def request(self) -> ocsp.OCSPRequest:
        # SHA-1 names the issuer here and protects nothing; it is what all responders know (RFC 5019).
        return ocsp.OCSPRequestBuilder().add_certificate(self.leaf, self.issuer, hashes.SHA1()).build()

    def der(self) -> bytes:
        return self.request().public_bytes(serialization.Encoding.DER)


def responder_of(leaf: x509.Certificate) -> str:
    """The first address by HTTP that is named, empty without one."""
    try:
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    named = [each.access_location.value for each in access if each.access_method == AuthorityInformationAccessOID.OCSP]
    return next((url for url in named if isinstance(url, str) and url.startswith(("http://", "https://"))), "")


def must_staple(leaf: x509.Certificate) -> bool:
    """Whether clients are told to refuse the certificate without a stapled answer (RFC 7633)."""
    try:
        features = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return x509.TLSFeatureType.status_request in features


def question(chain: Sequence[x509.Certificate]) -> Question | None:
    """None when nobody is named, or the chain does not have the issuer, without whom no answer can be checked."""
    url = responder_of(chain[0])
    if not url or len(chain) < 2:
        return None
    return Question(url, chain[0], chain[1])


def read(der: bytes, asked: Question, at: float) -> Answer:
    """Raises CertificateError with the reason that an answer is worth nothing."""
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise CertificateError(f"it answered {response.response_status.name.lower().replace('_', ' ')}")
        signer = _signer(response, asked.issuer, at)
        return _answer(der, _about(response, asked), signer, at)
    except _BAD as error:
        raise CertificateError(f"it sent no proper answer: {str(error) or type(error).__name__}") from None


def _about(response: ocsp.OCSPResponse, asked: Question) -> ocsp.OCSPSingleResponse:
    """What an answer, perhaps about several, says of the one that was asked about."""
    wanted = _identity(asked.request())
    for single in response.responses:
        if _identity(single) == wanted:
            return single
    raise CertificateError("it answered about another certificate")


def _identity(of: ocsp.OCSPRequest | ocsp.OCSPSingleResponse) -> tuple[int, str, bytes, bytes]:
    return of.serial_number, of.hash_algorithm.name, of.issuer_name_hash, of.issuer_key_hash


def _signer(response: ocsp.OCSPResponse, issuer: x509.Certificate, at: float) -> x509.Certificate:
    """The issuer, or whom it has named for this; the signature is theirs. Raises CertificateError."""
    signer = next((each for each in (issuer, *response.certificates) if _is_named(response, each)), None)
    if signer is None:
        raise CertificateError("its answer is signed by somebody who is not named in it")
    if signer != issuer and not _is_delegate(signer, issuer, at):
        raise CertificateError(f"{pem.shown_name(signer.subject)}, who signed its answer, may not speak for the issuer")
    try:
        _verify(response, signer)
    except (InvalidSignature, InternalError):
        raise CertificateError("the signature of its answer is wrong") from None
    return signer


def _is_named(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_key_hash is not None:
        return response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return response.responder_name == certificate.subject


def _is_delegate(signer: x509.Certificate, issuer: x509.Certificate, at: float) -> bool:
    starts, ends = pem.validity(signer)
    try:
        uses = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    in_time = starts - _SLOW_CLOCK <= at < ends
    return in_time and ExtendedKeyUsageOID.OCSP_SIGNING in uses and pem.issued_by(signer, issuer)


def _verify(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    key, digest = signer.public_key(), response.signature_hash_algorithm
    if not isinstance(digest, _STRONG):
        raise CertificateError("its answer has a signature of a kind that browsers refuse")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(digest))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), digest)
    else:
        raise CertificateError("its answer is signed with a key that is neither ECDSA nor RSA")


def _answer(der: bytes, single: ocsp.OCSPSingleResponse, signer: x509.Certificate, at: float) -> Answer:
    starts, next_update = single.this_update_utc.timestamp(), single.next_update_utc
    if next_update is None:
        raise CertificateError("its answer does not say for how long it holds")
    until = min(next_update.timestamp(), pem.validity(signer)[1])
    if starts > at + _SLOW_CLOCK:
        raise CertificateError(f"its answer is from the future, {pem.day(starts)}; is the clock of this machine right?")
    if until <= at:
        raise CertificateError(f"its answer was out of date on {pem.day(until)}")
    if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise CertificateError("it does not know the certificate")
    revoked = single.certificate_status is ocsp.OCSPCertStatus.REVOKED
    return Answer(der, starts, until, _revoked_at(single.revocation_time_utc, starts) if revoked else None)


def _revoked_at(said: datetime | None, starts: float) -> float:
    return said.timestamp() if said else starts
