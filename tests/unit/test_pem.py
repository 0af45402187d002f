"""Which keys and chains are taken, and what is said about the others."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from paasd.database import Database
from paasd.errors import InvalidInput, NotFound, PaasdError
from paasd.models import App
from paasd.route import pem
from paasd.route.certificates import Certificates, Source, StoredCertificate, choose
from paasd.secrets import Vault
from tests.tls import Authority
from tests.unit.conftest import Store

NOW = time.time()
DOMAINS = ["www.blog.test", "blog.test"]


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def middle(root: Authority) -> Authority:
    return Authority.new("Middle", root)


def taken(text: str, domains: list[str] | None = None, now: float = NOW) -> pem.Bundle:
    return pem.checked(pem.read(text), domains or DOMAINS, now)


def test_a_chain_is_put_in_order_and_its_root_left_out(root: Authority, middle: Authority) -> None:
    key, chain = middle.leaf(["blog.test", "*.blog.test"])
    leaf, above = chain.replace("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\n|").split("|")[:2]
    for text in (key + chain + root.pem, root.pem + above + key + leaf, leaf + f"some words\n{key}" + root.pem + above):
        found = taken(text)
        assert found.chain_pem == leaf + above
        assert found.names == ("blog.test", "*.blog.test")
        assert pem.read(found.key_pem.reveal() + found.chain_pem).leaf == found.leaf
    assert "PRIVATE" not in repr(taken(key + chain + root.pem).key_pem)


def test_who_signed_itself_is_complete() -> None:
    alone = Authority.new("blog.test")
    key, chain = alone.leaf(["blog.test"])
    assert len(taken(key + chain + alone.pem).chain) == 1


def test_what_is_wrong_is_said(root: Authority, middle: Authority) -> None:
    key, chain = middle.leaf(["blog.test"])
    other = pem.key_pem(ec.generate_private_key(ec.SECP256R1()))
    whole = key + chain + root.pem
    expired = "".join(middle.leaf(["blog.test"], days=1, age=2)) + root.pem
    future = "".join(middle.leaf(["blog.test"], age=-1)) + root.pem
    client = "".join(middle.leaf(["blog.test"], more=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]))
    for text, said in {
        "": "no private key",
        "nonsense": "no private key",
        chain: "no private key",
        key: "no certificate",
        key + other + chain: "2 private keys",
        other + chain: "belongs to none of the certificates",
        key + chain: "the certificate of CN=Test root is missing",
        whole + Authority.new("Stranger").pem: "CN=Stranger is not part of the chain",
        expired: "has expired on",
        future: "is not valid before",
        client + root.pem: "not made for servers",
        whole.replace("-----END CERTIFICATE", "AAAA\n-----END CERTIFICATE", 1): "cannot be read",
        key + chain * 6 + root.pem: "at most 10",
        "x" * 40_000: "40000 characters",
        "".join(middle.leaf(["other.test"])) + root.pem: "the app has www.blog.test, blog.test",
        "".join(middle.leaf(["*.www.blog.test"])) + root.pem: "the app has",
    }.items():
        with pytest.raises(InvalidInput) as caught:
            taken(text)
        assert said in caught.value.detail, caught.value.detail


def test_keys_that_browsers_or_we_do_not_take(root: Authority) -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for key, said in {small: "1024 bits", ec.generate_private_key(ec.SECP521R1()): "secp521r1"}.items():
        with pytest.raises(InvalidInput, match=said):
            taken("".join(root.leaf(["blog.test"], key=key)) + root.pem)
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, form, none).decode()
    with pytest.raises(InvalidInput, match="ECDSA and RSA"):
        taken(edwards + root.pem)
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"word")
    )
    with pytest.raises(InvalidInput, match="encrypted") as caught:
        taken(locked.decode() + root.pem)
    assert "openssl pkey" in caught.value.hint
    taken(
        "".join(root.leaf(["blog.test"], key=rsa.generate_private_key(public_exponent=65537, key_size=2048))) + root.pem
    )


def test_keys_that_take_long_are_refused_before_the_work(root: Authority) -> None:
    """All of them are well-formed; loading and validating such keys has stopped whole daemons for seconds."""
    chain = root.leaf(["blog.test"])[1] + root.pem
    one, other = 2**9689 - 1, 2**4423 - 1
    for p, q, said in ((one, other, "characters, more than"), (other, 2**2203 - 1, "do not belong together")):
        made = rsa_pem(p, q, 65537, 2**4000 - 1)
        with pytest.raises(InvalidInput, match=said):
            taken(made + chain)
    with pytest.raises(InvalidInput, match="ECDSA and RSA"):
        taken(dsa_pem() + chain)


def test_parts_of_an_rsa_key_that_do_not_belong_together(root: Authority) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    chain = root.leaf(["blog.test"], key=key)[1] + root.pem
    parts = key.private_numbers()
    p, q, d = parts.p, parts.q, parts.d
    taken(rsa_pem(p, q, 65537, d) + chain)
    for wrong in (
        rsa_pem(p, q, 65537, d - 2),
        rsa_pem(p, q, 2**70 + 1, d),
        rsa_pem(p, q, 65537, d, n=parts.public_numbers.n + 2),
        rsa_pem(p, q, 65537, d, n=parts.public_numbers.n + 1),
        rsa_pem(1, p * q, 65537, d),
        rsa_pem(2, p * q // 2, 65537, d),
    ):
        with pytest.raises(InvalidInput, match=r"belong|cannot be read"):
            taken(wrong + chain)


def test_blocks_without_an_end_are_read_once() -> None:
    begin = "-----BEGIN A-----"
    assert list(pem._blocks(begin * 200_000)) == []  # ten minutes where each looks for its end in all that follows
    assert list(pem._blocks(begin * 3 + "x-----END A-----")) == [("A", f"{begin}x-----END A-----")]
    with pytest.raises(InvalidInput, match="characters"):
        pem.read(begin * 20_000)


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([len(body)]) if len(body) < 128 else bytes([0x80 | len(size)]) + size) + body


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def armoured(label: str, content: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(content).decode()}-----END {label}-----\n"


def rsa_pem(p: int, q: int, e: int, d: int, n: int | None = None) -> str:
    inverse = pow(q, -1, p) if p > 2 else 1
    numbers = (0, n or p * q, e, d, p, q, d % max(p - 1, 1), d % (q - 1), inverse)
    return armoured("RSA PRIVATE KEY", der(0x30, *(integer(number) for number in numbers)))


def dsa_pem() -> str:
    kind = der(6, bytes.fromhex("2a8648ce380401"))
    limits = der(0x30, *(integer(number) for number in (2**12001 - 33, 2**256 - 189, 3**1000)))
    key = der(4, integer(2**11990 - 1))
    return armoured("PRIVATE KEY", der(0x30, integer(0), der(0x30, kind, limits), key))


def test_the_hosts_own_roots_need_not_be_given() -> None:
    known = x509.load_pem_x509_certificate(pem.ROOTS.read_bytes())
    assert known.subject.public_bytes() in pem.known_roots()


def test_a_wildcard_stands_for_one_label() -> None:
    for host, covered in {
        "a.b.test": True,
        "b.test": False,
        "x.a.b.test": False,
        "*.b.test": True,
        "a.c.test": False,
    }.items():
        assert pem.covers(("*.b.test",), host) is covered


def stored(id: str, source: Source, *names: str, ends: float = NOW + 1000) -> StoredCertificate:
    return StoredCertificate(id, "o", "a", source, "", names, "", NOW - 1000, ends, None, None, None, "", NOW)


def test_valid_ones_first_then_imported_ones_then_those_that_last() -> None:
    hosts = ["a.test", "b.test", "c.test"]

    def chosen(*certificates: StoredCertificate, at: float = NOW) -> dict[str, str]:
        return {host: each.id for host, each in choose(certificates, hosts, at).items()}

    acme = stored("acme", Source.ACME, "a.test", "b.test")
    mine = stored("mine", Source.IMPORTED, "a.test")
    assert chosen(acme, mine) == {"a.test": "mine", "b.test": "acme"}
    assert chosen(acme, stored("mine", Source.IMPORTED, "a.test", ends=NOW - 1)) == {"a.test": "acme", "b.test": "acme"}
    assert chosen(stored("local", Source.LOCAL, *hosts, ends=NOW + 9000), acme)["a.test"] == "acme"
    newer = stored("newer", Source.ACME, "a.test", "b.test", ends=NOW + 2000)
    assert chosen(acme, newer) == {"a.test": "newer", "b.test": "newer"}
    assert chosen(acme, at=NOW + 1000) == {"a.test": "acme", "b.test": "acme"}, "serves on when it has expired"


async def test_keys_are_sealed_where_they_lie(store: Store, root: Authority, tmp_path: Path) -> None:
    app = await store.apps.create(store.admin, "blog")
    other = await store.apps.create(store.admin, "other")
    vault = Vault(b"k" * 32)
    certificates = Certificates(store.database, vault)
    bundle = taken("".join(root.leaf(["blog.test"])) + root.pem)
    added = await certificates.add("me", app, Source.IMPORTED, bundle)
    assert (await certificates.add("me", app, Source.IMPORTED, bundle)).id == added.id, "the same is kept once"
    assert (await certificates.pem(added)).reveal() == bundle.key_pem.reveal() + bundle.chain_pem
    assert await certificates.get(app, added.id[:4]) == added
    for wrong, id in ((app, "zzzz"), (app, ""), (other, added.id)):
        with pytest.raises(NotFound):
            await certificates.get(wrong, id)
    assert b"PRIVATE KEY" not in await _dump(store.database)
    with pytest.raises(PaasdError, match="another master key"):
        await Certificates(store.database, Vault(b"x" * 32)).pem(added)
    await _hand_over(store.database, other)
    with pytest.raises(PaasdError, match="changed or moved"):
        await certificates.pem((await certificates.of(other))[0])


async def _dump(database: Database) -> bytes:
    rows = await database.fetch("SELECT * FROM certificates")
    return b"".join(bytes(str(value), "utf-8") for row in rows for value in row)


async def _hand_over(database: Database, app: App) -> None:
    async with database.transaction() as tx:
        await tx.execute("UPDATE certificates SET app_id = ?", app.id)
