"""Certificates by themselves: a whole box, the real pebble as authority, knot for names, and faults between them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.acme import ZONE, Exchange, Fault, FaultyProxy, NameServer, Pebble, at, authority, problem, slow
from tests.apps import app as web_app
from tests.box import Box, eventually
from tests.ports import free_port
from tests.tls import Authority, handshake, pem_of


@dataclass
class Town:
    box: Box
    names: NameServer
    pebble: Pebble
    proxy: FaultyProxy
    root: str

    def names_of(self, app: str) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.box.json("certs:report", app)["names"]}

    def later(self) -> None:
        """As if all certificates were an hour old, and had never failed."""
        with contextlib.closing(sqlite3.connect(self.box.data / "state.db", timeout=10)) as database, database:
            database.execute("UPDATE certificates SET created_at = created_at - 3600")
            database.execute("DELETE FROM certificate_troubles")

    def served(self, host: str) -> x509.Certificate:
        """Trusted by who trusts the authority's root, and no other."""
        return handshake(self.box.https_port, host, trust=self.root).certificate

    def covered(self, app: str, *hosts: str) -> None:
        def all_have() -> bool:
            found = self.names_of(app)
            return all(found[host]["valid"] for host in hosts)

        eventually(all_have)
        eventually(lambda: all(self._is_served(host) for host in hosts))

    def _is_served(self, host: str) -> bool:
        try:
            return bool(self.served(host))
        except ssl.SSLError:
            return False


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    http_port = free_port()
    with authority(http_port) as (names, pebble):
        proxy = FaultyProxy(pebble)
        settings = {
            "email": "admin@paasd.example",
            "directory": proxy.directory,
            "ca_bundle": str(pebble.ca_file),
            "timeout": 2.0,
            "dns": "rfc2136",
            "dns_server": f"127.0.0.1:{names.port}",
            "dns_key_name": "paasd",
            "dns_key_file": str(names.key_file),
            "dns_wait": 0.0,
        }
        box = Box("[acme]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        box.http_port = http_port
        try:
            yield Town(box.start(), names, pebble, proxy, pebble.root())
        finally:
            box.close()
            proxy.close()


@pytest.fixture
def app(town: Town, request: pytest.FixtureRequest) -> Iterator[str]:
    town.proxy.reset()
    name = f"a{zlib.crc32(request.node.name.encode())}"
    assert town.box.ssh("apps:create", name).status == 0
    yield name
    town.proxy.reset()
    town.box.ssh("apps:destroy", name, "--force")


def sans(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName))


def test_names_are_covered_as_they_come(town: Town, app: str) -> None:
    """By one certificate, without anybody asking, and over plain HTTP nobody notices."""
    first, second = f"one.{ZONE}", f"two.{ZONE}"
    town.box.ssh("domains:add", app, first)
    town.covered(app, first)
    assert sans(town.served(first)) == {first}
    eventually(lambda: town.box.get(app, host=first).status == 308)
    redirected = town.box.get(app, host=first)
    assert redirected.headers["Location"] == f"https://{first}:{town.box.https_port}/"
    town.box.ssh("domains:add", app, second)
    town.covered(app, second)
    assert sans(town.served(first)) == sans(town.served(second)) == {first, second}
    eventually(lambda: len(town.box.json("certs:list", app)) == 1)
    job = next(j for j in town.box.json("jobs") if j["type"] == "certificate.issue" and j["status"] == "queued")
    days = (datetime.fromisoformat(job["run_at"]).timestamp() - time.time()) / 86400
    assert 59 < days < 61, "two thirds of 90 days"
    assert town.proxy.seen.count("order-plz") == 2 and town.proxy.seen.count("sign-me-up") <= 2
    url = f"https://{first}:{town.box.https_port}"
    assert town.box.json("apps:info", app)["url"] == url
    pushed = town.box.push(town.box.repository(web_app(body="hello")), app)
    assert pushed.status == 0 and url in pushed.err, pushed
    request = f"GET / HTTP/1.1\r\nHost: {first}\r\nConnection: close\r\n\r\n".encode()
    seen = handshake(town.box.https_port, first, trust=town.root, send=request)
    assert seen.version == "TLSv1.3" and seen.answer.startswith(b"HTTP/1.1 200") and seen.answer.endswith(b"hello")


def test_a_name_that_points_elsewhere_holds_up_no_other(town: Town, app: str) -> None:
    good, bad = f"good.{ZONE}", "bad.nowhere.example"
    town.box.ssh("domains:add", app, bad, good)
    town.covered(app, good)
    eventually(lambda: town.names_of(app)[bad]["problem"])
    found = town.names_of(app)
    assert bad in found[bad]["problem"] or "dns" in found[bad]["problem"]
    assert not found[good]["problem"] and sans(town.served(good)) == {good}
    wait = datetime.fromisoformat(found[bad]["retry_at"]).timestamp() - time.time()
    assert 30 < wait < 6001
    assert bad in town.box.ssh("certs:report", app).out
    town.box.ssh("domains:remove", app, bad)
    eventually(lambda: bad not in town.names_of(app))


def test_a_wildcard_by_dns(town: Town, app: str) -> None:
    host = f"deep.sub.{ZONE}"
    town.box.ssh("tls:set", app, "automatic", "off")
    town.box.ssh("domains:add", app, host)
    town.box.ssh("tls:set", app, "wildcard", "on")
    done = town.box.ssh("certs:enable", app)
    assert done.status == 0, done
    assert sans(town.served(host)) == {f"*.sub.{ZONE}"}
    before = town.served(host)
    town.box.ssh("domains:add", app, f"other.sub.{ZONE}")
    eventually(lambda: town.names_of(app)[f"other.sub.{ZONE}"]["valid"])
    assert town.served(f"other.sub.{ZONE}") == before, "covered already"
    assert town.names.ask("_acme-challenge.sub", "TXT") == b"", "the records are removed"


def test_wildcard_domains_and_redirects_are_covered_too(town: Town, app: str) -> None:
    """By one order, which must not name what its wildcard stands for; a redirect from HTTPS needs one as well."""
    wildcard, below, old = f"*.w.{ZONE}", f"x.w.{ZONE}", f"old-{app}.{ZONE}"
    town.box.ssh("tls:set", app, "automatic", "off")
    assert town.box.ssh("domains:add", app, f"'{wildcard}'", below).status == 0
    assert town.box.ssh("redirects:add", app, old, below).status == 0
    done = town.box.ssh("certs:enable", app)
    assert done.status == 0, done
    town.covered(app, below, old)
    assert sans(town.served(f"any.w.{ZONE}")) == sans(town.served(below)) == {wildcard, old}
    assert town.proxy.seen.count("order-plz") == 1 and town.names_of(app)[wildcard]["valid"]
    target = f"https://{below}:{town.box.https_port}/x?y"
    request = f"GET /x?y HTTP/1.1\r\nHost: {old}\r\nConnection: close\r\n\r\n".encode()
    eventually(lambda: target.encode() in handshake(town.box.https_port, old, trust=town.root, send=request).answer)
    answer = town.box.get(app, "/x?y", host=old)
    assert (answer.status, answer.headers["Location"]) == (301, target)


def test_rsa_renewing_and_revoking(town: Town, app: str) -> None:
    host = f"keys.{ZONE}"
    town.box.ssh("domains:add", app, host)
    town.covered(app, host)
    first = town.served(host)
    town.box.ssh("tls:set", app, "key-type", "rsa")
    refused = town.box.ssh("certs:renew", app)
    assert refused.status != 0 and "less than 10 minutes ago" in refused.err and town.served(host) == first
    town.later()
    done = town.box.ssh("certs:renew", app)
    assert done.status == 0 and "It is served" in done.out, done
    second = town.served(host)
    assert second != first and isinstance(second.public_key(), rsa.RSAPublicKey)
    (stored,) = town.box.json("certs:list", app)
    done = town.box.ssh("certs:revoke", app, stored["id"])
    assert done.status == 0, done
    status = json.loads(town.pebble._get(town.pebble.management, f"/cert-status-by-serial/{stored['serial']}"))
    assert status["Status"] == "Revoked"
    town.covered(app, host)
    assert town.served(host) not in (first, second)
    assert town.box.ssh("tls:set", app, "automatic", "off").status == 0
    refused = town.box.ssh("certs:renew", app)
    assert refused.status != 0 and "certs:enable" in refused.err


def test_local_names_have_the_boxs_own_authority(town: Town, app: str) -> None:
    hosts = [f"{app}.lan", f"{app}.home.arpa"]
    town.box.ssh("domains:add", app, *hosts)
    done = town.box.ssh("certs:enable", app)
    assert done.status == 0, done
    root = town.box.ssh("certs:ca").out
    seen = handshake(town.box.https_port, hosts[0], trust=root)
    assert sans(seen.certificate) == {*hosts, f"{app}.localhost"}
    assert town.box.get(app, host=hosts[0]).status == 503, "browsers do not know it, so there is no redirect"
    assert "update-ca-certificates" in town.box.ssh("certs:ca", "--help-trust").out
    constraints = x509.load_pem_x509_certificate(root.encode()).extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical and "lan" in {name.value for name in constraints.value.permitted_subtrees or ()}
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(town.box.https_port, hosts[0], trust=Authority.new().pem)
    assert "order-plz" not in town.proxy.seen


def gone(exchange: Exchange) -> None:
    raise ConnectionAbortedError


def garbage(exchange: Exchange) -> None:
    exchange.status, exchange.body = 200, b"<html>Welcome to nginx"
    exchange.headers["Content-Type"] = "text/html"


def no_directory(exchange: Exchange) -> None:
    exchange.body = b'{"hello": ["world"]}'


def wrong_chain(exchange: Exchange) -> None:
    leaf = exchange.body.decode().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    exchange.body = (leaf + Authority.new("Somebody else").pem).encode()


def wrong_leaf(exchange: Exchange) -> None:
    exchange.body = pem_of(Authority.new("Somebody else").certificate).encode()


def invalid_order(exchange: Exchange) -> None:
    found = json.loads(exchange.body)
    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"}
    exchange.body = json.dumps({**found, "status": "invalid", "error": error}).encode()


FAULTS: dict[str, tuple[str, Fault, str]] = {
    "down": ("dir", gone, "cannot be reached"),
    "not an authority": ("dir", garbage, "makes no sense"),
    "no directory": ("dir", no_directory, "makes no sense"),
    "error page": ("order-plz", lambda e: (problem(500, "serverInternal")(e), setattr(e, "body", b"oops"))[0], "makes"),
    "500": ("order-plz", problem(500, "serverInternal", "we are sorry"), "we are sorry"),
    "bad nonces": ("order-plz", problem(400, "badNonce"), "badNonce"),
    "rate limit": ("order-plz", problem(429, "rateLimited", "too many", Retry_After="7200"), "rateLimited"),
    "refused name": ("order-plz", problem(400, "rejectedIdentifier", "not this one"), "not this one"),
    "slow": ("authZ", slow(3), "in time"),
    "invalid order": ("my-order", invalid_order, "CAA forbids it"),
    "wrong chain": ("certZ", wrong_chain, "is not part of the chain"),
    "wrong leaf": ("certZ", wrong_leaf, "belongs to none of the certificates"),
    "no certificate": ("certZ", garbage, "no certificate"),
}


def test_whatever_the_authority_does_the_old_certificate_serves(town: Town, app: str) -> None:
    """Each fault is told with its reason, nothing is lost by it, and when it is over there is a new certificate."""
    host = f"faults.{ZONE}"
    town.box.ssh("domains:add", app, host)
    town.covered(app, host)
    old = town.served(host)
    for name, (kind, fault, said) in FAULTS.items():
        town.proxy.reset()
        town.proxy.fault = at(kind, fault)
        town.later()
        done = town.box.ssh("certs:renew", app)
        assert done.status != 0 and said in done.err, f"{name}: {done}"
        assert town.served(host) == old, name
        found = town.names_of(app)[host]
        assert said in found["problem"] and found["valid"] and found["redirect"], f"{name}: {found}"
        wait = datetime.fromisoformat(found["retry_at"]).timestamp() - time.time()
        assert (7000 < wait < 7300) if name == "rate limit" else (30 < wait < 61), f"{name}: {wait}"
        asked = town.proxy.seen.count("order-plz")
        if name in ("500", "rate limit"):
            again = town.box.ssh("certs:renew", app)
            assert again.status != 0 and "It is tried again" in again.err, again
        assert town.proxy.seen.count("order-plz") == asked, "whoever asks, not before a minute"
    town.proxy.reset()
    town.later()
    town.proxy.fault = at("order-plz", problem(400, "badNonce"), times=1)
    done = town.box.ssh("certs:renew", app)
    assert done.status == 0, "a single bad nonce is tried again at once"
    assert town.served(host) != old
    assert len(town.box.json("certs:list", app)) == 1


def test_a_name_server_that_is_gone(town: Town, app: str) -> None:
    host = f"gone.{ZONE}"
    town.box.ssh("domains:add", app, host)
    town.covered(app, host)
    old = town.served(host)
    town.later()
    town.names.stop()
    done = town.box.ssh("certs:renew", app)
    town.names.start()
    assert done.status != 0 and host in done.err and town.served(host) == old
    town.later()
    assert town.box.ssh("certs:renew", app).status == 0


def test_a_daemon_killed_while_it_orders_has_the_certificate_in_the_end(town: Town, app: str) -> None:
    host = f"killed.{ZONE}"
    town.proxy.before = at("finalize-order", slow(1.5))
    town.box.ssh("domains:add", app, host)
    eventually(lambda: "finalize-order" in town.proxy.seen)
    town.box.kill()
    town.proxy.reset()
    town.box.start()
    town.covered(app, host)
    assert sans(town.served(host)) == {host}
