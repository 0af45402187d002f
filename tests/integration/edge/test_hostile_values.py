"""Values that want to get into the configuration of Nginx: wherever a user can give one to the edge, it is refused or
stays a value. What `nginx -T` prints is the same afterwards, and the other app answers at its own host names."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from paasd.gateway.policy import KEYS
from paasd.tls_settings import KEYS as TLS_KEYS
from tests.apps import app
from tests.box import Box, unix_request

pytestmark = [pytest.mark.engine, pytest.mark.slow]

BREAKOUTS = [
    "a.test; location /h/ { alias /etc/; autoindex on; } set $x y",
    "a.test; } server { listen 80; server_name victim.example; location / { return 200 owned; } }",
    "a.test;} } events {} http { server { listen 81; }",
    'a.test"; return 200 "owned',
    "a.test'; return 200 'owned",
    "a.test\n; return 200 owned;",
    "a.test\r\nX-Owned: yes",
    "a.test\\\n} server {",
    "a.test # the rest is silence",
    "a.test {}",
    "a{1}.test",
    "a.test\0b",
    "$host",
    "${host}.test",
    "$document_root/$request_uri",
    "~^.*$",
    "~^(?<x>.+)$",
    "a.test b.test",
    "content_by_lua_block { os.execute('id') }",
    "include /etc/passwd;",
    "../../etc/passwd",
    "]] os.execute('id') --[[",
]
"""Those that mean something to Nginx or Lua."""
ODD_NAMES = [
    "",
    "*.",
    "*",
    "*.*",
    "_",
    '""',
    ".",
    "..",
    ".a.test",
    "a..test",
    "-a.test",
    "a-.test",
    "a_b.test",
    "a.test:80",
]
ODD_NAMES += [
    f"{'a' * 64}.test",
    f"{'a.' * 125}test",
    "xn--",
    "xn--a",
    "a.xn--zzzzzzz",
    "p\u0430ypal.test",
    "a\u3002test",
]
ODD_NAMES += [
    "\u202ea.test",
    "a.test\u200b",
    "a.test.",
    "127.0.0.1",
    "::1",
    "[::1]",
    "2130706433",
    "0x7f.1",
    "localhost",
]
TAKEN = ["victim.example", "VICTIM.example", "victim.example.", "victim.localhost", "panel.test", "*.localhost"]
TAKEN += ["victim\u200b.example", "\uff56ictim.example", "victim\uff0eexample", "VICTIM\u3002example"]
"""Another app's, the built-in one of another app, the panel's own."""
NOBODYS = {"a\u3002test", "a.test.", "p\u0430ypal.test", "a.xn--zzzzzzz", "a.test\u200b"}
"""Names of their own, if spelt oddly: whoever has them may give them to an app. They are kept as DNS has them."""

WRAPPED: dict[str, list[str]] = {
    "body-size": ["10m{}", "{}m"],
    "allow": ["192.0.2.0/24 {}", "192.0.2.1/{}"],
    "deny": ["192.0.2.0/24 {}"],
    "auth.basic": ["{}:secret", "ann:{}"],
    "auth.forward": ["http://auth.test/{}", "http://{}/"],
    "auth.forward-headers": ["X-User {}"],
    "limit.rate": ["10/s {}", "10/{}"],
    "balance.hash": ["header:{}", "cookie:{}"],
    "header.request": ["set X-A {}", "set {} a", "set X-A a; {}"],
    "header.response": ["set X-A {}", "set {} a", "set X-A a; {}"],
    "cors.origins": ["https://{}", "https://*.{}"],
    "cors.headers": ["X-A {}"],
    "rewrite": ["/a -> {}", "/{} -> /b", "/a/* -> /{}"],
    "maintenance.page": ["<p>{}</p>"],
    "error-page.502": ["<p>{}</p>"],
    "error-page.503": ["<p>{}</p>"],
    "error-page.504": ["<p>{}</p>"],
    "timeout.read": ["10s{}"],
}
"""More of what a key's own grammar begins or ends with."""


class Attacked:
    """A box with the app that is tried on, `hostile`, and one that must not notice, `victim`."""

    def __init__(self, box: Box) -> None:
        self.box = box
        assert box.push(box.repository(app(body="the victim")), "victim").status == 0
        assert box.ssh("domains:add", "victim", "victim.example").status == 0
        assert box.ssh("apps:create", "hostile").status == 0
        self.before = self.printed()

    def printed(self) -> str:
        """Hash of what Nginx reads. Times of files are in it nowhere."""
        edge = self.box.data / "edge"
        command = ["nginx", "-p", str(edge), "-e", "stderr", "-c", str(edge / "nginx.conf"), "-T", "-q"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        assert b"server {" in done.stdout
        return hashlib.sha256(done.stdout).hexdigest()

    def files(self) -> dict[str, str]:
        """What -T would print, without asking Nginx each time."""
        edge = self.box.data / "edge"
        return {str(path): path.read_text() for path in (edge / "nginx.conf", *(edge / "sites").glob("*"))}

    def tell(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        return unix_request(str(self.box.data / "run" / "api.sock"), method, f"/api/v1{path}", body)

    def refused(self, method: str, path: str, body: Any) -> bool:
        """An answer that blames the asker; with what went on inside paasd nothing is told."""
        status, answer = self.tell(method, path, body)
        assert status < 500 and "Traceback" not in str(answer), (body, status, answer)
        return status >= 400

    def assert_untouched(self) -> None:
        assert self.printed() == self.before
        for host in ("victim.localhost", "victim.example"):
            assert self.box.get("victim", host=host).text == "the victim"
        assert self.box.get("hostile").status in (502, 503)
        self.box.settles()


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    box = Box('[http]\npanel = "panel.test"\n').start()
    try:
        yield Attacked(box)
    finally:
        box.close()


def _domains(name: str) -> tuple[str, str, Any]:
    return "POST", "/apps/hostile/domains", {"names": [name]}


def _all_domains(name: str) -> tuple[str, str, Any]:
    return "PUT", "/apps/hostile/domains", {"names": ["good.test", name]}


def _redirect_from(name: str) -> tuple[str, str, Any]:
    return "POST", "/apps/hostile/redirects", {"host": name, "to": "hostile.localhost"}


def _redirect_to(name: str) -> tuple[str, str, Any]:
    return "POST", "/apps/hostile/redirects", {"host": "from.test", "to": name}


def _global(name: str) -> tuple[str, str, Any]:
    return "POST", "/global-domains", {"names": [name]}


def _app(name: str) -> tuple[str, str, Any]:
    return "POST", "/apps", {"name": name}


def _rename(name: str) -> tuple[str, str, Any]:
    return "PATCH", "/apps/hostile", {"name": name}


def _clone(name: str) -> tuple[str, str, Any]:
    return "POST", "/apps/hostile/clone", {"name": name}


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        (_domains, NOBODYS),
        (_all_domains, NOBODYS),
        (_redirect_from, NOBODYS),
        (_redirect_to, set()),
        (_global, {*NOBODYS, "victim.localhost"}),  # each app has a name under it, and nobody has that one
        (_app, {"localhost"}),
        (_rename, {"localhost"}),
        (_clone, {"localhost"}),
    ],
)
def test_names(attacked: Attacked, place: Callable[[str], tuple[str, str, Any]], allowed: set[str]) -> None:
    taken = {name for name in (*BREAKOUTS, *ODD_NAMES, *TAKEN) if not attacked.refused(*place(name))}
    assert taken <= allowed
    assert attacked.box.get("victim", host="victim.example").text == "the victim"
    attacked.tell("PATCH", "/apps/localhost", {"name": "hostile"})
    attacked.tell("DELETE", "/apps/localhost", None)
    for path in ("/apps/hostile/domains", "/global-domains"):
        attacked.tell("PUT", path, {"names": []})
    for redirect in attacked.box.api("GET", "/apps/hostile/redirects")["items"]:
        attacked.tell("DELETE", f"/apps/hostile/redirects/{quote(redirect['host'])}", None)
    attacked.assert_untouched()


@pytest.mark.parametrize("key", KEYS)
def test_edge_settings(attacked: Attacked, key: str) -> None:
    """Text for people and headers may hold anything printable; it never gets into the configuration."""
    before = attacked.files()
    for form in ("{}", *WRAPPED.get(key, ())):
        for payload in BREAKOUTS:
            value = form.replace("{}", payload)
            if attacked.refused("PATCH", "/apps/hostile/edge", {"settings": {key: value}}):
                continue
            assert "\r" not in payload or "page" in key, (key, value)
            assert attacked.files() == before, (key, value)
    attacked.tell("PATCH", "/apps/hostile/edge", {"settings": {key: None}})
    attacked.assert_untouched()


@pytest.mark.parametrize("key", [*BREAKOUTS, *ODD_NAMES[:8], "body-size; return 200 owned"])
def test_keys_that_there_are_not(attacked: Attacked, key: str) -> None:
    assert attacked.refused("PATCH", "/apps/hostile/edge", {"settings": {key: "on"}})
    assert attacked.refused("PATCH", "/apps/hostile/tls", {"settings": {key: "on"}})


@pytest.mark.parametrize("key", TLS_KEYS)
def test_tls_settings(attacked: Attacked, key: str) -> None:
    for form in ("{}", "31536000; {}", "31536000 {}", "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"):
        for payload in BREAKOUTS:
            body = {"settings": {key: form.replace("{}", payload)}}
            assert attacked.refused("PATCH", "/apps/hostile/tls", body), body
    attacked.assert_untouched()


def test_paths_that_another_app_answers(attacked: Attacked) -> None:
    before = attacked.files()
    for payload in BREAKOUTS:
        for prefix in (payload, f"/{payload}", f"/a/{payload}/"):
            attacked.refused("POST", "/apps/hostile/routes", {"prefix": prefix, "app": "victim"})
            assert attacked.files() == before, prefix
        assert attacked.refused("POST", "/apps/hostile/routes", {"prefix": "/x", "app": payload})
    for route in attacked.box.api("GET", "/apps/hostile/routes")["items"]:
        attacked.tell("DELETE", f"/apps/hostile/routes?prefix={quote(route['prefix'], safe='')}", None)
    attacked.assert_untouched()


def test_certificates(attacked: Attacked) -> None:
    for payload in BREAKOUTS:
        assert attacked.refused("POST", "/apps/hostile/certificates", {"pem": payload})
    attacked.assert_untouched()


def test_requests_choose_nothing_either(attacked: Attacked) -> None:
    """Host headers, paths and what else a visitor sends."""
    for payload in BREAKOUTS:
        if payload.isprintable():
            assert attacked.box.get("victim", host=payload).text != "the victim"
            headers = {"X-Forwarded-Host": payload, "X-Forwarded-Proto": payload, "X-Request-Id": payload}
            assert attacked.box.get("victim", headers=headers).text == "the victim"
    attacked.assert_untouched()
