"""Certificates of one's own, on a whole box."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import Box, eventually
from tests.nginx import restart_alone
from tests.tls import Authority, handshake

GET = b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def app(box: Box) -> Iterator[str]:
    name = "certs"
    assert box.ssh("apps:create", name).status == 0
    assert box.ssh("domains:add", name, "www.certs.test").status == 0
    yield name
    box.ssh("apps:destroy", name, "--force")


def refused(box: Box, host: str, **options: object) -> bool:
    try:
        handshake(box.https_port, host, **options)  # type: ignore[arg-type]
    except (ssl.SSLError, ConnectionError):
        return True
    return False


def imported(box: Box, app: str, authority: Authority, *names: str) -> str:
    done = box.ssh("certs:import", app, stdin="".join(authority.leaf(names)) + authority.pem)
    assert done.status == 0, done
    return str(box.json("certs:list", app)[0]["id"])


def test_an_imported_certificate_from_first_to_last(box: Box, app: str, authority: Authority) -> None:
    host = "www.certs.test"
    assert box.json("apps:info", app)["url"] == f"http://{host}:{box.http_port}"
    assert box.get(app, host=host).status == 503 and refused(box, host)
    first = imported(box, app, authority, host)
    seen = handshake(box.https_port, host, trust=authority.pem, send=GET % host.encode())
    assert seen.version == "TLSv1.3" and b"HTTP/1.1 503" in seen.answer
    assert b"Strict-Transport-Security: max-age=2592000\r\n" in seen.answer
    redirected = box.get(app, "/a?b=c", host=host)
    assert (redirected.status, redirected.headers["Location"]) == (308, f"https://{host}:{box.https_port}/a?b=c")
    assert box.get(app).status == 503, "a name without a certificate"
    assert box.json("apps:info", app)["url"] == f"https://{host}:{box.https_port}"
    names = {each["name"]: each for each in box.json("certs:report", app)["names"]}
    assert names[host]["valid"] and names[host]["redirect"] and not names[f"{app}.localhost"]["certificate"]
    second = imported(box, app, authority, host, f"{app}.localhost")
    assert box.json("certs:info", app, second[:5])["serves"] == [host, f"{app}.localhost"]
    assert handshake(box.https_port, host).certificate != seen.certificate
    assert box.json("certs:info", app)["id"] == second
    assert [(each["app"], each["id"]) for each in box.json("certs:list")] == [(app, second), (app, first)]
    listed = box.ssh("certs:list").out
    assert listed.splitlines()[0].split()[0] == "APP" and f"{app} " in listed and second in listed
    chain = box.ssh("certs:chain", app, second).out
    assert box.ssh("certs:chain", app).out == chain
    assert chain.count("BEGIN CERTIFICATE") == 1 and "PRIVATE" not in chain
    assert "PRIVATE" not in box.ssh("events", "--json").out
    assert box.ssh("certs:remove", app, second).status == 0
    assert handshake(box.https_port, host).certificate == seen.certificate, "the other one takes over"
    box.ssh("certs:remove", app, first)
    assert refused(box, host) and box.get(app, host=host).status == 503
    none = box.ssh("certs:info", app)
    assert none.status != 0 and "has no certificate" in none.err
    assert b"PRIVATE KEY" not in (box.data / "state.db").read_bytes()


def test_what_cannot_be_served_is_refused_with_the_reason(box: Box, app: str, authority: Authority) -> None:
    key, chain = authority.leaf(["www.certs.test"])
    for text, said in {
        "": "no private key",
        chain: "no private key",
        key + Authority.new().leaf(["www.certs.test"])[1]: "belongs to none",
        key + chain: "is missing",
        "".join(authority.leaf(["other.test"])) + authority.pem: "the app has www.certs.test",
        "".join(authority.leaf(["www.certs.test"], days=1, age=2)) + authority.pem: "has expired",
    }.items():
        done = box.ssh("certs:import", app, stdin=text)
        assert done.status != 0 and said in done.err, done
    assert box.json("certs:list", app) == []


def test_a_name_without_an_authority_is_told_without_a_time(box: Box, app: str) -> None:
    assert box.ssh("domains:add", app, "www.paasd.example").status == 0
    box.ssh("certs:enable", app)
    told = box.ssh("certs:report", app).out
    assert "acme.email is not set in paasd.toml" in told and "tried again" not in told


def test_settings_take_effect_at_once(box: Box, app: str, authority: Authority) -> None:
    host = "www.certs.test"
    imported(box, app, authority, host)
    old = ssl.TLSVersion.TLSv1_2
    assert refused(box, host, most=old)
    assert box.ssh("tls:set", app, "min-version", "1.2").status == 0
    assert handshake(box.https_port, host, most=old).version == "TLSv1.2"
    assert box.ssh("tls:set", app, "min-version").status == 0
    assert refused(box, host, most=old)
    box.ssh("tls:set", app, "redirect", "off")
    assert box.get(app, host=host).status == 503
    box.ssh("tls:set", app, "hsts", "'31536000;includesubdomains'")
    answer = handshake(box.https_port, host, send=GET % host.encode()).answer
    assert b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n" in answer
    box.ssh("tls:set", app, "hsts", "off")
    assert b"Strict-Transport" not in handshake(box.https_port, host, send=GET % host.encode()).answer
    for key, value in (("hsts", "for ever"), ("min-version", "1.1"), ("client-ca", "x"), ("hsts", "'1; } evil'")):
        done = box.ssh("tls:set", app, key, value)
        assert done.status != 0 and f"{key} must be" in done.err
    assert box.json("tls:report", app)["hsts"]["value"] == "off"


def test_clients_need_a_certificate_of_the_apps_authority(
    box: Box, app: str, authority: Authority, tmp_path: Path
) -> None:
    host, clients = "www.certs.test", Authority.new("Clients")
    imported(box, app, authority, host)
    assert box.ssh("tls:set", app, "client-ca", stdin=clients.pem).status == 0
    me = tmp_path / "me.pem"
    me.write_text("".join(clients.leaf(["me.test"])))
    assert b" 503 " in handshake(box.https_port, host, identity=me, send=GET % host.encode()).answer
    assert b" 400 " in handshake(box.https_port, host, send=GET % host.encode()).answer
    assert box.get(app).status == 308, "nor by plain HTTP, whatever the name"
    for nothing in ("", " \n"):
        done = box.ssh("tls:set", app, "client-ca", stdin=nothing)
        assert done.status != 0 and "nothing was changed" in done.err, done
    assert b" 400 " in handshake(box.https_port, host, send=GET % host.encode()).answer
    try:
        assert box.ssh("apps:clone", app, "certs-copy").status == 0
        assert box.get("certs-copy").status == 308, "a clone lets in nobody else"
    finally:
        box.ssh("apps:destroy", "certs-copy", "--force")
    box.ssh("tls:set", app, "client-ca", "''")
    assert b" 503 " in handshake(box.https_port, host, send=GET % host.encode()).answer


def test_the_address_of_an_app_with_a_local_certificate_is_where_plain_http_leads(box: Box, app: str) -> None:
    """Browsers do not know the box's own authority: the address is over HTTPS only where nothing else is left."""
    host = "www.certs.test"
    plain, secure = f"http://{host}:{box.http_port}", f"https://{host}:{box.https_port}"
    done = box.ssh("certs:enable", app)
    assert done.status == 0, done
    names = {each["name"]: each for each in box.json("certs:report", app)["names"]}
    assert names[host]["source"] == "local" and names[host]["valid"]
    for key, word, text in (("redirect", ["on"], ""), ("client-ca", [], Authority.new("Clients").pem)):
        assert box.json("apps:info", app)["url"] == plain and box.get(app, host=host).status == 503, key
        assert box.ssh("tls:set", app, key, *word, stdin=text).status == 0
        answer = box.get(app, host=host)
        assert (answer.status, answer.headers["Location"]) == (308, f"{secure}/"), key
        assert box.json("apps:info", app)["url"] == secure, key
        assert box.ssh("tls:set", app, key, "''").status == 0
    assert box.json("apps:info", app)["url"] == plain


def test_settings_that_the_edge_does_not_take_are_not_kept(box: Box, app: str, authority: Authority) -> None:
    host = "www.certs.test"
    imported(box, app, authority, host)
    before = box.json("tls:report", app)
    obstacle = box.data / "edge" / ".hosts.txt.new"  # the table of host names, which tell of HSTS, cannot be written
    obstacle.mkdir()
    try:
        done = box.ssh("tls:set", app, "hsts", "1234")
        assert done.status != 0, done
        assert box.json("tls:report", app) == before
    finally:
        obstacle.rmdir()
    assert box.ssh("tls:set", app, "hsts", "4321").status == 0
    seen = handshake(box.https_port, host, trust=authority.pem, send=GET % host.encode())
    assert b"Strict-Transport-Security: max-age=4321\r\n" in seen.answer


def test_certificates_go_along_with_names_and_apps(box: Box, app: str, authority: Authority) -> None:
    host = "www.certs.test"
    imported(box, app, authority, host)
    assert box.ssh("apps:rename", app, "renamed").status == 0
    try:
        assert handshake(box.https_port, host, trust=authority.pem)
        eventually(lambda: box.get("renamed", host=host).status == 308)
    finally:
        box.ssh("apps:rename", "renamed", app)
    box.ssh("domains:remove", app, host)
    eventually(lambda: refused(box, host))
    box.ssh("domains:add", app, host)
    eventually(lambda: not refused(box, host))
    box.ssh("apps:destroy", app, "--force")
    eventually(lambda: not list((box.data / "edge" / "tls").glob("[0-9a-f]*.pem")))


def test_nginx_serves_before_the_daemon_is_there(new_box: object, authority: Authority) -> None:
    box = new_box().start()  # type: ignore[operator]
    box.ssh("apps:create", "early")
    box.ssh("domains:add", "early", "early.test")
    imported(box, "early", authority, "early.test")
    box.stop()
    done = box.local("version")
    assert done.status != 0, "the daemon still runs"
    restart_alone(box)
    assert handshake(box.https_port, "early.test", trust=authority.pem)
    for path in (box.data / "edge" / "tls").glob("[0-9a-f]*.pem"):
        path.unlink()
    box.kill_nginx()
    box.start()
    box.settles()
    eventually(lambda: not refused(box, "early.test"))
    assert handshake(box.https_port, "early.test", trust=authority.pem)


def test_without_https_nobody_is_sent_there(new_box: object, authority: Authority) -> None:
    box = new_box().start()  # type: ignore[operator]
    box.ssh("apps:create", "plain")
    box.ssh("domains:add", "plain", "plain.test")
    imported(box, "plain", authority, "plain.test")
    assert box.get("plain", host="plain.test").status == 308
    box.stop()
    box.https_port = 0
    box.start()
    eventually(lambda: box.get("plain", host="plain.test").status == 503)
    assert box.json("apps:info", "plain")["url"] == f"http://plain.test:{box.http_port}"
    box.settles()
