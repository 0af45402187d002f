"""New private keys, and requests for certificates of them."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from paasd.route.pem import PrivateKey

_RSA_BITS = 2048


def new_key(key_type: str) -> PrivateKey:
    """`ecdsa` is P-256, `rsa` for clients of long ago. Takes a moment for RSA."""
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def request(key: PrivateKey, names: Sequence[str]) -> bytes:
    """PEM of a PKCS #10 request."""
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
