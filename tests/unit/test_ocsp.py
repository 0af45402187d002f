"""Which answers of OCSP responders are believed, and where they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp as library
from cryptography.x509.oid import ExtendedKeyUsageOID

from paasd.errors import CertificateError
from paasd.route import ocsp, pem
from paasd.route.edge_staples import Staple, parse
from paasd.route.ocsp_responder import OcspResponders
from tests.ocsp import MUST_STAPLE, REVOKED, UNKNOWN, Responder, delegate, named
from tests.ocsp import answer as answer_at
from tests.tls import Authority

NOW = time.time()
answer = partial(answer_at, at=NOW)
"""Of the moment at which these tests were read: they may run much later."""
DAY = 86400.0
NAME = library.OCSPResponderEncoding.NAME
URL = "http://ocsp.ca.test/a"


@pytest.fixture(scope="module")
def middle() -> Authority:
    return Authority.new("Middle", Authority.new())


def question(issuer: Authority, **more: Any) -> ocsp.Question:
    chain = pem.read_chain(issuer.leaf(["blog.test"], more=[named(URL)], **more)[1])
    found = ocsp.question(chain)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def asked(middle: Authority) -> ocsp.Question:
    return question(middle)


def reason(der: bytes, asked: ocsp.Question) -> str:
    with pytest.raises(CertificateError) as caught:
        ocsp.read(der, asked, NOW)
    return caught.value.detail


def test_whom_a_certificate_names(middle: Authority) -> None:
    def leaf(*more: x509.ExtensionType) -> x509.Certificate:
        return pem.read_chain(middle.leaf(["blog.test"], more=more)[1])[0]

    assert ocsp.responder_of(leaf()) == "" and not ocsp.must_staple(leaf())
    assert ocsp.responder_of(leaf(named(URL))) == URL
    assert ocsp.responder_of(leaf(named("ldap://ca.test/x"))) == ""
    assert ocsp.must_staple(leaf(MUST_STAPLE))
    direct = Authority.new().leaf(["blog.test"], more=[named(URL)])[1]
    assert ocsp.question(pem.read_chain(direct)) is None, "nobody to check an answer by"


def test_a_good_answer_is_taken(middle: Authority, asked: ocsp.Question) -> None:
    der = answer(asked.leaf, middle, at=NOW, age=3600, lasts=DAY)
    found = ocsp.read(der, asked, NOW)
    assert found == ocsp.Answer(der, int(NOW - 3600), int(NOW + DAY), None)
    assert ocsp.read(answer(asked.leaf, middle, by=NAME), asked, NOW)
    request = library.load_der_ocsp_request(asked.der())
    assert request.serial_number == asked.leaf.serial_number


def test_rsa_issuers_sign_too(middle: Authority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    issuer = Authority(_reissued(middle, key), key, middle.issuer)
    asked = question(issuer)
    assert ocsp.read(answer(asked.leaf, issuer), asked, NOW).revoked_at is None
    bad = bytearray(answer(asked.leaf, issuer))
    bad[-1] ^= 1
    assert "signature of its answer is wrong" in reason(bytes(bad), asked)


def _reissued(authority: Authority, key: rsa.RSAPrivateKey) -> x509.Certificate:
    assert authority.issuer is not None
    old = authority.certificate
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, key.public_key(), 7, old.not_valid_before_utc, old.not_valid_after_utc
    ).add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(authority.issuer.key, hashes.SHA256())


def test_a_revocation_is_told(middle: Authority, asked: ocsp.Question) -> None:
    found = ocsp.read(answer(asked.leaf, middle, REVOKED, at=NOW), asked, NOW)
    assert found.revoked_at == int(NOW - DAY)


def test_a_delegate_of_the_issuer_may_answer_and_nobody_else(middle: Authority, asked: ocsp.Question) -> None:
    helper = delegate(middle)
    assert ocsp.read(answer(asked.leaf, middle, signer=helper, sent=[helper[0]]), asked, NOW)
    assert "not named in it" in reason(answer(asked.leaf, middle, signer=helper), asked)
    server = delegate(middle, ExtendedKeyUsageOID.SERVER_AUTH)
    stranger = delegate(Authority.new("Middle"))
    for who in (server, stranger):
        assert "may not speak" in reason(answer(asked.leaf, middle, signer=who, sent=[who[0]]), asked)
    key, chain = middle.leaf(["blog.test"])
    own = pem.read(key + chain)
    assert "may not speak" in reason(answer(asked.leaf, middle, signer=(own.leaf, own.key), sent=[own.leaf]), asked)


def test_the_answers_end_is_that_of_who_signed_it(middle: Authority, asked: ocsp.Question) -> None:
    helper = delegate(middle)
    found = ocsp.read(answer(asked.leaf, middle, signer=helper, sent=[helper[0]], lasts=400 * DAY), asked, NOW)
    assert found.until == helper[0].not_valid_after_utc.timestamp()


def test_what_is_not_believed(middle: Authority, asked: ocsp.Question) -> None:
    leaf, namesake, other = asked.leaf, Authority.new("Middle"), question(middle).leaf
    later = library.OCSPResponseBuilder.build_unsuccessful(library.OCSPResponseStatus.TRY_LATER)
    good = answer(leaf, middle)
    changed = bytearray(good)
    changed[-1] ^= 1
    for der, said in (
        (
            answer(leaf, middle, signer=(namesake.certificate, namesake.key), by=NAME),
            "signature of its answer is wrong",
        ),
        (answer(leaf, namesake), "not named in it"),
        (answer(leaf, namesake, signer=(middle.certificate, middle.key)), "about another certificate"),
        (answer(other, middle), "about another certificate"),
        (answer(leaf, middle, at=NOW, age=2 * DAY, lasts=-1), "out of date"),
        (answer(leaf, middle, at=NOW, age=-400), "from the future"),
        (answer(leaf, middle, lasts=None), "for how long"),
        (answer(leaf, middle, UNKNOWN), "does not know"),
        (answer(leaf, middle, digest=hashes.SHA224()), "browsers refuse"),
        (later.public_bytes(serialization.Encoding.DER), "try later"),
        (bytes(changed), "signature of its answer is wrong"),
        (good[:-20], "no proper answer"),
        (b"", "no proper answer"),
        (b"<html>not found</html>", "no proper answer"),
    ):
        assert said in reason(der, asked), said


async def test_garbage_is_never_more_than_refused(middle: Authority, asked: ocsp.Question) -> None:
    good = answer(asked.leaf, middle, sent=[middle.certificate])
    for place in range(0, len(good), 3):
        for wrong in (good[:place], good[:place] + bytes([good[place] ^ 0x15]) + good[place + 1 :]):
            try:
                ocsp.read(wrong, asked, NOW)
            except CertificateError:
                continue
            # Only what is outside of the signature, the certificates that come along, may differ.
            assert place > good.index(middle.certificate.public_bytes(serialization.Encoding.DER)) - 16


@pytest.fixture
def responder() -> Iterator[Responder]:
    found = Responder()
    yield found
    found.close()


async def refusal(url: str, allowed: str = "127.0.0.0/8", apps: str = "10.9.0.0/16") -> str:
    with pytest.raises(CertificateError) as caught:
        await OcspResponders(apps, allowed).ask(url, b"question")
    return caught.value.detail


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/", "no public address"),
        ("http://2130706433/", "no public address"),
        ("http://127.1/", "no public address"),
        ("http://localhost/", "no public address"),
        ("http://[::1]/", "no public address"),
        ("http://[::ffff:127.0.0.1]/", "no public address"),
        ("http://169.254.169.254/latest/meta-data/", "no public address"),
        ("http://10.9.0.1/", "no public address"),
        ("http://192.168.1.1/", "no public address"),
        ("http://user:word@ca.test/", "no address that is asked"),
        ("http://127.0.0.1\\@ca.test/", "no address that is asked"),
        ("http://ca.test /", "no address that is asked"),
        ("http://ca.test/\r\nX: y", "no address that is asked"),
        ("http://ca.test/" + "x" * 2000, "no address that is asked"),
        ("http://ca.test:99999/", "is not an http(s) address"),
        ("file:///etc/passwd", "no address that is asked"),
        ("gopher://ca.test/", "no address that is asked"),
    ],
)
async def test_addresses_that_are_never_asked(url: str, said: str) -> None:
    assert said in await refusal(url, allowed="")


async def test_the_apps_are_never_asked_whatever_is_allowed() -> None:
    assert "no public address" in await refusal("http://10.9.0.1/", allowed="10.0.0.0/8")


async def test_answers_are_bounded_and_redirections_not_followed(responder: Responder) -> None:
    request = library.OCSPRequestBuilder().add_certificate_by_hash(b"x" * 20, b"y" * 20, 7, hashes.SHA1())
    question = request.build().public_bytes(serialization.Encoding.DER)
    ask = OcspResponders("10.9.0.0/16", "127.0.0.0/8").ask
    responder.says(b"anything")
    assert await ask(responder.url, question) == b"anything" and responder.asked == [7]
    for saying, said in (
        ({"body": b"x" * 70_000}, "more than 65536 bytes"),
        ({"body": b"", "status": 503}, "status 503"),
        ({"body": b"", "status": 302, "location": responder.url}, "status 302"),
    ):
        responder.says(**saying)  # type: ignore[arg-type]
        with pytest.raises(CertificateError, match=said):
            await ask(responder.url, question)
    assert len(responder.asked) == 4


async def test_a_slow_responder_is_not_waited_for(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paasd.route.ocsp_responder._TIMEOUT", 0.3)
    responder.says(b"late", delay=30)
    request = library.OCSPRequestBuilder().add_certificate_by_hash(b"x" * 20, b"y" * 20, 7, hashes.SHA1())
    question = request.build().public_bytes(serialization.Encoding.DER)
    began = asyncio.get_running_loop().time()
    with pytest.raises(CertificateError, match="within"):
        await OcspResponders("10.9.0.0/16", "127.0.0.0/8").ask(responder.url, question)
    assert asyncio.get_running_loop().time() - began < 10


def test_a_damaged_file_is_none() -> None:
    staple = Staple(1_900_000_000, b"\x30\x03abc")
    text = staple.text("one")
    assert parse("one", text) == staple and parse("two", text) is None
    for wrong in ("", "good", text[:-3], text.replace("good", "revoked"), text.replace(" 19", " 18"), text + text):
        assert parse("one", wrong) is None
