"""The grammar of host names: what is refused, what they become, how they are shown."""

from __future__ import annotations

import random

import pytest

from paasd.errors import InvalidInput
from paasd.route.host_names import both, domain_name, host_name

HOSTILE = [
    "",
    " ",
    ".",
    "localhost",
    "_",
    '""',
    "~^.*$",
    "$host",
    "$host.test",
    "a{}.test",
    "a.test; location / { }",
    "a.test; location /h/ { alias /etc/; autoindex on; } set $x y",
    "a.test; } server { listen 80; server_name victim.test; location / { return 200 owned; }",
    "a.test#b",
    "a'b.test",
    'a"b.test',
    "a\\b.test",
    "a.test\nb.test",
    "a.test\n",
    "\na.test",
    "a.test\r",
    "a.test\x00",
    "a\x1b[2J.test",
    "a\x7f.test",
    "a b.test",
    " a.test",
    "a.test ",
    "a\u00a0b.test",
    "a\u2028b.test",
    "a\u202eb.test",
    "a..test",
    ".a.test",
    "a.test.",
    "a.test..",
    "a.test\u3002",
    "-a.test",
    "a-.test",
    "a_b.test",
    "_acme-challenge.a.test",
    f"{'a' * 64}.test",
    ".".join(["a" * 63] * 4),
    "a" * 254,
    "ü" * 100 + ".test",
    "1.2.3.4",
    "1.2.3.4.",
    "a.1",
    "0x7f.1",
    "a.0x1",
    "2130706433",
    "1.2.3.\uff14",
    "::1",
    "[::1]",
    "[::1].test",
    "a.test:80",
    "a.test/x",
    "http://a.test",
    "user@a.test",
    "a%2e.test",
    "\ud800.test",
    "\u00ad.test",
    "a\u200bb\u200d.test",
    "\u05d0abc.test",
    "\u0660\u06f0.test",
    "\u2603.test",
    "\uff0a.a.test",
    "xn--n3h.test",
    "xn--a.test",
    "xn--.test",
    "xn--zzzzzz--.test",
    "xn--bcher-KVA-.test",
    "ab--c.test",
]
WILDCARDS = [
    "*",
    "*.",
    "*.com",
    "*.test",
    "*.*.a.test",
    "a.*.test",
    "a.*.b.test",
    "**.a.test",
    "a*.a.test",
    "*a.a.test",
    "*.a.test.",
    "*.a.test\n",
    "*.-a.test",
    "*.a.test; location / { }",
    "*.1.2.3.4",
    "*.$host.test",
    "*..a.test",
    "*." + ".".join(["a" * 60] * 4) + ".aaaaaaaaaa",
]


@pytest.mark.parametrize("name", [*HOSTILE, *WILDCARDS], ids=ascii)
def test_hostile_names_are_refused(name: str) -> None:
    for check in (host_name, domain_name):
        with pytest.raises(InvalidInput) as caught:
            check(name)
        assert caught.value.detail.isprintable() and caught.value.hint


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("www.example.org", "www.example.org"),
        ("WWW.Example.ORG", "www.example.org"),
        ("a-b.3com.example", "a-b.3com.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("www\u3002example\u3002org", "www.example.org"),
        ("\uff57ww.example.org", "www.example.org"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("אבג.example", "xn--4dbcd.example"),
        (".".join(["a" * 63] * 3), ".".join(["a" * 63] * 3)),
    ],
)
def test_names_are_stored_as_a_labels(name: str, stored: str) -> None:
    assert host_name(name) == domain_name(name) == stored
    assert domain_name(f"*.{name}") == f"*.{stored}"
    with pytest.raises(InvalidInput):
        host_name(f"*.{name}")


def test_people_see_both_forms() -> None:
    assert both("xn--bcher-kva.example") == "bücher.example (xn--bcher-kva.example)"
    assert both("*.xn--bcher-kva.example") == "*.bücher.example (*.xn--bcher-kva.example)"
    assert both("www.example.org") == "www.example.org"
    assert both("xn--a.example") == "xn--a.example", "from before names were checked so strictly"


def test_whatever_comes_is_refused_or_becomes_what_nginx_and_dns_take() -> None:
    chooser = random.Random(13)
    accepted = 0
    for _ in range(5000):
        text = "".join(
            chr(chooser.choice([chooser.randrange(0x20, 0x7F), chooser.randrange(0x600), chooser.randrange(0x110000)]))
            for _ in range(chooser.randrange(1, 6))
        )
        try:
            host = domain_name(f"{text}.example")
        except InvalidInput as error:
            assert error.detail.isprintable()
            continue
        accepted += 1
        assert set(host.removeprefix("*.")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") and len(host) <= 253
        assert domain_name(host) == host
    assert accepted > 100
