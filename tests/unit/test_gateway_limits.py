"""Grammar of limits, and what the edge is told of them."""

from __future__ import annotations

import json

import pytest

from paasd.app_settings import Family
from paasd.errors import InvalidInput
from paasd.gateway.policy import COMMAND, KEYS, policy_text

FAMILY = Family("edge", COMMAND, "edge setting", KEYS)


@pytest.mark.parametrize(
    ("value", "usual", "rules"),
    [
        ("20/s", "20/s", [{"every": 0.05, "burst": 20, "by": "ip"}]),
        ("5/M", "5/m", [{"every": 12.0, "burst": 5, "by": "ip"}]),
        ("1/h  burst 3", "1/h burst 3", [{"every": 3600.0, "burst": 3, "by": "ip"}]),
        (
            "20/s burst 40 by IP;5/m by header:X-Api-Key ; 2/s by ip on /Login/",
            "20/s burst 40 by ip; 5/m by header:x-api-key; 2/s by ip on /Login",
            [
                {"every": 0.05, "burst": 40, "by": "ip"},
                {"every": 12.0, "burst": 5, "by": "header:x-api-key"},
                {"every": 0.5, "burst": 2, "by": "ip", "on": "/Login"},
            ],
        ),
        ("3/s by path on /", "3/s by path", [{"every": 1 / 3, "burst": 3, "by": "path"}]),
        ("3/s by all on /a/b; 3/s by all on /a/b;", "3/s by all on /a/b", None),
    ],
)
def test_rates(value: str, usual: str, rules: list[object] | None) -> None:
    assert FAMILY.checked("limit.rate", value) == usual
    assert FAMILY.checked("limit.rate", usual) == usual
    if rules:
        assert json.loads(policy_text({"limit.rate": usual})) == {"limits": {"rate": rules}}


def test_connections() -> None:
    usual = FAMILY.checked("limit.connections", "20; 100 by all on /x")
    assert usual == "20; 100 by all on /x"
    assert json.loads(policy_text({"limit.connections": usual})) == {
        "limits": {"connections": [{"most": 20, "by": "ip"}, {"most": 100, "by": "all", "on": "/x"}]}
    }


@pytest.mark.parametrize(
    "value",
    [
        *(
            "20",
            "0/s",
            "-1/s",
            "1.5/s",
            "20/d",
            "20 /s",
            "20/s burst 0",
            "20/s burst",
            "20/s by cookie",
            "20/s by header:",
        ),
        *("20/s by header:a_b", "20/s by header:a\nb", f"1/s by header:{'a' * 65}", "20/s on login", "20/s on //", ";"),
        *("20/s on /a/../b", "20/s on /./b", "20/s on /a?b", "20/s on /%61", "20/s on /a\x00", "20/s on /ä", "٢/s"),
        *(
            "20/s on /a by ip",
            "20/s by ip by ip",
            "100000/s",
            "; ".join(f"{n}/s" for n in range(1, 10)),
            '20/s"',
            "1/s}",
        ),
    ],
)
def test_what_is_no_rate(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"limit\.rate must be up to 8 rules"):
        FAMILY.checked("limit.rate", value)
