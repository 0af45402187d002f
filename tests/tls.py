"""Certificates for tests, and handshakes by a client of our own."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem_of(thing: x509.Certificate | Key) -> str:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    form = serialization.PrivateFormat.PKCS8
    return thing.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@dataclass
class Authority:
    certificate: x509.Certificate
    key: Key
    issuer: Authority | None = None

    @classmethod
    def new(cls, name: str = "Test root", issuer: Authority | None = None) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, issuer.certificate.subject if issuer else subject, key, 3650, 1)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        return cls(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key, issuer)

    @property
    def pem(self) -> str:
        return pem_of(self.certificate)

    def leaf(
        self,
        names: Iterable[str],
        *,
        days: float = 90,
        age: float = 1,
        key: Key | None = None,
        more: Iterable[x509.ExtensionType] = (),
    ) -> tuple[str, str]:
        """Key and chain in PEM, the chain without the root. `age`: days since it was issued."""
        names = list(names)
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        builder = _builder(subject, self.certificate.subject, key, days, age).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        chain = pem_of(builder.sign(self.key, hashes.SHA256()))
        above: Authority | None = self
        while above is not None and above.issuer is not None:
            chain += above.pem
            above = above.issuer
        return pem_of(key), chain


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, days: float, age: float) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - timedelta(days=age)
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), start, start + timedelta(days=days)
    )


@dataclass
class Handshake:
    """What a client saw."""

    version: str
    cipher: str
    protocol: str | None
    certificate: x509.Certificate
    answer: bytes = b""
    session: ssl.SSLSession | None = None
    resumed: bool = False


def handshake(
    port: int,
    name: str | None,
    *,
    trust: str | None = None,
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    identity: Path | None = None,
    send: bytes = b"",
    alpn: tuple[str, ...] = (),
    context: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> Handshake:
    """Connect as a client that knows no certificate, or only those of `trust`. Raises ssl.SSLError."""
    if context is None:
        context = ssl.create_default_context(cadata=trust) if trust else ssl._create_unverified_context()
    context.maximum_version = most
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if identity:
        context.load_cert_chain(identity)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=name, session=session) as connection:
            der = connection.getpeercert(binary_form=True)
            assert der is not None
            answer = b""
            if send:
                connection.sendall(send)
                while piece := connection.recv(65536):
                    answer += piece
            version, cipher = connection.version() or "", (connection.cipher() or ("",))[0]
            return Handshake(
                version,
                cipher,
                connection.selected_alpn_protocol(),
                x509.load_der_x509_certificate(der),
                answer,
                connection.session,
                bool(connection.session_reused),
            )
