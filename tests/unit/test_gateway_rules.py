"""Settings of the parts that change requests and answers, and the policies made of them."""

from __future__ import annotations

import json

import pytest

from paasd.gateway.cors import check
from paasd.gateway.policy import KEYS, pages_text, policy_text


def policy(**settings: str) -> dict[str, object]:
    values = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    text = policy_text({key: KEYS[key].check(value) for key, value in values.items()})
    return json.loads(text) if text else {}


@pytest.mark.parametrize(
    ("value", "usual"),
    [
        ("set X-A b", "set X-A b"),
        ("  SET X-A   b ;\n; remove Server;", "set X-A b; remove Server"),
        ('add Link "</a>; rel=preload"', 'add Link "</a>; rel=preload"'),
        ('set A "b"', "set A b"),
        (r'set A "say \"b\" \\ c"', r'set A "say \"b\" \\ c"'),
        ('set A " b "', 'set A " b "'),
        ('set Report-To {"group":"a"}', r'set Report-To "{\"group\":\"a\"}"'),
        ("set A {path}{client_ip}", "set A {path}{client_ip}"),
        ("set Authorization Basic\ta\nremove B", None),
    ],
)
def test_header_rules(value: str, usual: str | None) -> None:
    if usual is None:
        with pytest.raises(ValueError):
            KEYS["header.response"].check(value)
    else:
        assert KEYS["header.response"].check(value) == usual
        assert KEYS["header.response"].check(usual) == usual


@pytest.mark.parametrize("key", ["header.request", "header.response"])
@pytest.mark.parametrize(
    "value",
    [
        " ",
        ";",
        "set",
        "set A",
        "set A ;",
        'set A ""',
        "remove",
        "remove A b",
        "replace A b",
        "set A: b",
        "set A\x00 b",
        "set Ä b",
        "set A_B c",
        "set (A) b",
        "set A ä",
        "set A b\x7f",
        "set A b\x1b[1m",
        'set A "b\nSet-Cookie: c"',
        'set A "b\rSet-Cookie: c"',
        'set A "b',
        'set A "b" c',
        "set A {secret}",
        "set A {client_ip }{http_cookie}",
        "set A " + "b" * 4097,
        "set " + "a" * 101 + " b",
        "set Content-Security-Policy default-src 'self'; img-src *",
        "; ".join(["set A b"] * 51),
        "set A b\n" * 5000,
        'set A "' + r"\"" * 100_000,
        "set Connection close",
        "remove connection",
        "set Transfer-Encoding chunked",
        "set CONTENT-LENGTH 0",
        "remove Content-Encoding",
        "set Upgrade h2c",
        "add TE trailers",
        "set Trailer X",
        "set Keep-Alive 1",
        "set Proxy-Authorization x",
        "set Proxy x",
        "set Vary Cookie",
        "set X-Accel-Redirect /etc",
    ],
)
def test_what_is_no_header_rule_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError):
        KEYS[key].check(value)


@pytest.mark.parametrize(
    ("key", "name", "why"),
    [
        ("header.request", "Host", "name that was asked for"),
        ("header.request", "X-Forwarded-For", "who asks"),
        ("header.request", "x-forwarded-anything", "who asks"),
        ("header.request", "X-Real-IP", "who asks"),
        ("header.request", "Forwarded", "who asks"),
        ("header.request", "X-Request-Id", "who asks"),
        ("header.request", "traceparent", "traceparent on"),
        ("header.request", "Upgrade", "neighbours"),
        ("header.response", "Content-Length", "length"),
        ("header.response", "Strict-Transport-Security", "tls:set"),
        ("header.response", "Date", "own"),
    ],
)
def test_refused_headers_come_with_the_reason(key: str, name: str, why: str) -> None:
    for rule in (f"set {name} x", f"remove {name}"):
        with pytest.raises(ValueError, match=why):
            KEYS[key].check(rule)


def test_policies_of_headers() -> None:
    assert policy(header__request="remove Cookie", request_id="on") == {
        "headers": {
            "request": [["remove", "Cookie", ""]],
            "response": [["set", "X-Request-Id", "{request_id}"]],
        }
    }
    assert policy(request_id="off") == {}


@pytest.mark.parametrize(
    ("value", "usual"),
    [
        ("/old/* -> /new/*", [["/old/*", "/new/*"]]),
        ("/api/*->/*\n/a -> /b; /* -> /app/*", [["/api/*", "/*"], ["/a", "/b"], ["/*", "/app/*"]]),
        ("/gone/* -> /", [["/gone/*", "/"]]),
    ],
)
def test_rewrite_rules(value: str, usual: list[list[str]]) -> None:
    assert policy(rewrite=value) == {"rewrite": usual}
    stored = KEYS["rewrite"].check(value)
    assert KEYS["rewrite"].check(stored) == stored


@pytest.mark.parametrize(
    "value",
    [
        ";",
        "/a",
        "/a -> ",
        "/a /b",
        "/a -> b",
        "/a -> http://evil.example/",
        "/a -> //evil.example",
        "/a -> /b/*",
        "/a*b -> /c",
        "/a/** -> /c",
        "/../a -> /b",
        "/a -> /b/./c",
        "/a -> /b?c=d",
        "/a%2e -> /b",
        "/a -> /b\x00",
        "/ä -> /b",
        "/" + "a" * 502 + " -> /b",
        "; ".join(["/a -> /b"] * 101),
    ],
)
def test_what_is_no_rewrite_rule_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        KEYS["rewrite"].check(value)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"cors__methods": "GET"}, None),
        ({"cors__origins": "*"}, {"origins": ["*"], "methods": "GET, HEAD, POST", "seconds": 600}),
        (
            {"cors__origins": "HTTPS://A.example:443,https://*.b.example http://[::1]:3000 https://A.example"},
            {
                "origins": ["https://a.example", "https://*.b.example", "http://[::1]:3000"],
                "methods": "GET, HEAD, POST",
                "seconds": 600,
            },
        ),
        (
            {
                "cors__origins": "https://a.example",
                "cors__methods": "put, delete",
                "cors__headers": "X-A",
                "cors__expose": "X-B X-C",
                "cors__credentials": "on",
                "cors__max_age": "1h",
            },
            {
                "origins": ["https://a.example"],
                "methods": "PUT, DELETE",
                "headers": "X-A",
                "expose": "X-B, X-C",
                "credentials": True,
                "seconds": 3600,
            },
        ),
    ],
)
def test_policies_of_cors(settings: dict[str, str], wanted: dict[str, object] | None) -> None:
    assert policy(**settings) == ({"cors": wanted} if wanted else {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cors.origins", "null"),
        ("cors.origins", "a.example"),
        ("cors.origins", "https://a.example/"),
        ("cors.origins", "https://*"),
        ("cors.origins", "https://*.example"),
        ("cors.origins", "https://a.*.example"),
        ("cors.origins", "https://a*.b.example"),
        ("cors.origins", "*://a.example"),
        ("cors.origins", "https://user@a.example"),
        ("cors.origins", "https://a.example:0"),
        ("cors.origins", "https://a.example:65536"),
        ("cors.origins", "https://bücher.example"),
        ("cors.origins", "javascript://a.example"),
        ("cors.origins", "* https://a.example"),
        ("cors.origins", "https://a.example\r\nSet-Cookie:b"[:18] + "\x00"),
        ("cors.methods", "GET\x7f"),
        ("cors.methods", "(GET)"),
        ("cors.headers", "X-A: b"),
        ("cors.credentials", "yes"),
        ("cors.max-age", "2d"),
        ("traceparent", "yes"),
    ],
)
def test_what_is_no_value_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError):
        KEYS[key].check(value)


def test_everybody_with_credentials_is_refused() -> None:
    for key in ("cors.origins", "cors.methods", "cors.headers", "cors.expose"):
        with pytest.raises(ValueError, match=key):
            check({"cors.origins": "https://a.example", key: "*", "cors.credentials": "on"})
    check({"cors.origins": "https://a.example", "cors.credentials": "on"})
    check({"cors.origins": "*", "cors.credentials": "off"})
    assert "credentials" not in str(policy(cors__origins="*", cors__credentials="on"))


@pytest.mark.parametrize(
    "value",
    [" ", "a\x00b", "a\x1bb", "a\ud800", "ä" * 8193, "x" * 16385],
    ids=["empty", "nul", "escape", "half", "ä", "x"],
)
def test_what_is_no_page_is_refused(value: str) -> None:
    for key in ("maintenance.page", "error-page.502"):
        with pytest.raises(ValueError):
            KEYS[key].check(value)


def test_pages() -> None:
    page = "<p>\t日本\r\n" + "x" * 100
    values = {key: KEYS[key].check(page) for key in ("maintenance.page", "error-page.504")}
    assert json.loads(pages_text(values)) == {"maintenance": page, "504": page}
    assert pages_text({}) == "" and policy_text(values) == ""
    assert policy(maintenance="on", maintenance__allow="192.0.2.1") == {
        "maintenance": {"allow": ["192.0.2.1/32"], "seconds": 60}
    }
    assert policy(maintenance="off", maintenance__allow="192.0.2.1") == {}
