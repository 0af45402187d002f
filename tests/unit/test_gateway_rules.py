"""Settings of the parts that change requests and answers, and the policies made of them."""

from __future__ import annotations

import json

import pytest

from paasd.gateway.policy import KEYS, policy_text


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
