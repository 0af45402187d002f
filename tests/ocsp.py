"""A small real OCSP responder for tests, with all the ways it can fail."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from tests.tls import Authority

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])


def named(url: str) -> x509.AuthorityInformationAccess:
    """The extension that names a responder."""
    where = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, where)])


def delegate(authority: Authority, *uses: x509.ObjectIdentifier) -> tuple[x509.Certificate, Key]:
    """Somebody who answers for an authority."""
    use = x509.ExtendedKeyUsage(uses or (ExtendedKeyUsageOID.OCSP_SIGNING,))
    key, chain = authority.leaf(["responder.test"], more=[use])
    loaded = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(chain.encode()), loaded


def answer(
    leaf: x509.Certificate,
    issuer: Authority,
    status: ocsp.OCSPCertStatus = GOOD,
    *,
    at: float | None = None,
    age: float = 60.0,
    lasts: float | None = 7 * 86400.0,
    signer: tuple[x509.Certificate, Key] | None = None,
    sent: Iterable[x509.Certificate] = (),
    digest: hashes.HashAlgorithm | None = None,
    by: ocsp.OCSPResponderEncoding = ocsp.OCSPResponderEncoding.HASH,
) -> bytes:
    """`age`: seconds since thisUpdate; `lasts`: seconds from now to nextUpdate."""
    now = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    until = None if lasts is None else now + timedelta(seconds=lasts)
    revoked = now - timedelta(days=1) if status is REVOKED else None
    builder = ocsp.OCSPResponseBuilder().add_response(
        leaf, issuer.certificate, hashes.SHA1(), status, now - timedelta(seconds=age), until, revoked, None
    )
    who, key = signer or (issuer.certificate, issuer.key)
    builder = builder.responder_id(by, who)
    if sent := list(sent):
        builder = builder.certificates(sent)
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def staple_shown(port: int, name: str, *options: str) -> bool:
    """Whether openssl's client is shown a good answer in a handshake that works."""
    command = ["openssl", "s_client", "-status", "-connect", f"127.0.0.1:{port}", "-servername", name, *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    assert ("OCSP response: no response sent" in said) != ("Cert Status: good" in said), said
    return "Cert Status: good" in said


@dataclass
class Saying:
    """What the responder does with the next questions."""

    body: bytes = b""
    status: int = 200
    delay: float = 0.0
    location: str = ""


class Responder:
    """Says the same to all; `asked` are the serial numbers it was asked about."""

    def __init__(self) -> None:
        self.saying = Saying()
        self.asked: list[int] = []
        self._ended = threading.Event()
        responder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/ocsp-request"
                responder.asked.append(ocsp.load_der_ocsp_request(body).serial_number)
                saying = responder.saying
                responder._ended.wait(saying.delay)
                self.send_response(saying.status)
                if saying.location:
                    self.send_header("Location", saying.location)
                self.send_header("Content-Length", str(len(saying.body)))
                self.end_headers()
                try:
                    self.wfile.write(saying.body)
                except OSError:
                    """The client had enough."""

            def log_message(self, format: str, *values: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/ocsp"

    def says(self, body: bytes, **more: object) -> None:
        self.saying = Saying(body, **more)  # type: ignore[arg-type]

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
