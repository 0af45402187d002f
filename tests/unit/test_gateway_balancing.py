"""Settings of the balancer's parts, and the policies made of them."""

from __future__ import annotations

import json

import pytest

from paasd.gateway.breaker import BreakerState, parse_breakers
from paasd.gateway.ejection import Ejection, parse_ejections
from paasd.gateway.policy import KEYS, policy_text


def policy(**settings: str) -> dict[str, object]:
    values = {name.replace("__", "."): value for name, value in settings.items()}
    text = policy_text({key: KEYS[key].check(value) for key, value in values.items()})
    return json.loads(text) if text else {}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {}),
        ({"balance__algorithm": "round-robin"}, {}),
        ({"balance__hash": "header:X-Tenant"}, {}),
        ({"balance__sticky": "off"}, {}),
        ({"balance__algorithm": "EWMA"}, {"balance": {"algorithm": "ewma"}}),
        ({"balance__algorithm": "hash"}, {"balance": {"algorithm": "hash"}}),
        (
            {"balance__algorithm": "hash", "balance__hash": "header:X-Tenant"},
            {"balance": {"algorithm": "hash", "variable": "http_x_tenant"}},
        ),
        (
            {"balance__algorithm": "hash", "balance__hash": "cookie:My-Session"},
            {"balance": {"algorithm": "hash", "variable": "cookie_My-Session"}},
        ),
        (
            {"balance__sticky": "on"},
            {"balance": {"algorithm": "round-robin", "sticky": True}, "sticky": {"cookie": True}},
        ),
        ({"breaker__least": "5", "breaker__time": "1m"}, {}),
        (
            {"breaker__share": "50 %", "breaker__time": "1m", "breaker__answer": "502"},
            {"breaker": {"share": 50, "window": 10.0, "least": 20, "time": 60.0, "probes": 3, "answer": 502}},
        ),
        ({"eject__time": "10s"}, {}),
        (
            {"eject__failures": "3", "eject__on": "503 connect"},
            {"eject": {"failures": 3, "window": 30.0, "time": 30.0, "on": ["connect", "503"]}},
        ),
        ({"retries__count": "0"}, {"retries": {"count": 0, "on": ["connect"], "budget": 20}}),
        (
            {"retries__on": "503,connect", "retries__budget": "5%"},
            {"retries": {"count": 4, "on": ["connect", "503"], "budget": 5}},
        ),
        (
            {"timeout__read": "1500ms", "timeout__stream": "2h"},
            {"timeouts": {"read": 1.5, "stream": 7200.0}},
        ),
    ],
)
def test_policies(settings: dict[str, str], wanted: dict[str, object]) -> None:
    assert policy(**settings) == wanted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("balance.algorithm", "random"),
        ("balance.hash", "header:"),
        ("balance.hash", "header:X Tenant"),
        ("balance.hash", "header:" + "x" * 65),
        ("balance.hash", "cookie:a;b"),
        ("balance.hash", "cookie:é"),
        ("balance.hash", "url"),
        ("balance.sticky", "yes"),
        ("breaker.share", "0"),
        ("breaker.share", "101"),
        ("breaker.share", "50.5"),
        ("breaker.window", "500ms"),
        ("breaker.window", "11m"),
        ("breaker.least", "0"),
        ("breaker.probes", "-1"),
        ("breaker.answer", "200"),
        ("breaker.answer", "302"),
        ("eject.failures", "0"),
        ("eject.time", "2h"),
        ("eject.on", "500"),
        ("eject.on", ","),
        ("retries.count", "5"),
        ("retries.on", "everything"),
        ("retries.on", "502;503"),
        ("retries.budget", "200"),
        ("timeout.connect", "0"),
        ("timeout.connect", "2m"),
        ("timeout.read", "-1"),
        ("timeout.read", "nan"),
        ("timeout.stream", "8d"),
    ],
)
def test_what_is_no_value_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError):
        KEYS[key].check(value)


def test_what_the_edge_says() -> None:
    assert parse_breakers("blog open 12.500 40 31\nshop closed 0.000 7 0\n") == {
        "blog": BreakerState("open", 12.5, 40, 31),
        "shop": BreakerState("closed", 0, 7, 0),
    }
    assert parse_ejections("blog 7 10.0.0.2:5000 29.9 2\n") == [Ejection("blog", 7, "10.0.0.2:5000", 29.9, 2)]
