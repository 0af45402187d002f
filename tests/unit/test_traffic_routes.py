"""Which paths are counted by themselves: the grammar of `traffic.routes`, and what the edge is told."""

from __future__ import annotations

import json

import pytest

from paasd.app_settings import Family
from paasd.errors import InvalidInput
from paasd.gateway.policy import COMMAND, KEYS, policy_text
from paasd.gateway.traffic_routes import counted

FAMILY = Family("edge", COMMAND, "edge setting", KEYS)
KEY = "traffic.routes"


@pytest.mark.parametrize(
    ("value", "usual"),
    [
        ("/api", "/api"),
        ("  /api/   /check-out ", "/api /check-out"),
        ("/b /a /b/ /B", "/b /a /B"),
        ("/a/b.c/~d", "/a/b.c/~d"),
        ("/it's/(x)&y=1,2:3@4", "/it's/(x)&y=1,2:3@4"),
        ("/" + "x" * 199, "/" + "x" * 199),
        (" ".join(f"/{n}" for n in range(20)), " ".join(f"/{n}" for n in range(20))),
    ],
)
def test_paths(value: str, usual: str) -> None:
    assert FAMILY.checked(KEY, value) == usual
    assert FAMILY.checked(KEY, usual) == usual
    assert json.loads(policy_text({KEY: usual})) == {"traffic": {"routes": sorted(usual.split())}}


@pytest.mark.parametrize(
    "value",
    [
        " ",
        "/",
        "api",
        "//api",
        "/api//",
        "/a//b",
        "/a/../b",
        "/a/.",
        "/a?b",
        "/a%20b",
        "/a;b",
        "/a|1",
        "/ä",
        '/a"b',
        "/a\\b",
        "/a\x00",
        "/a*/ /b//c",
        "/" + "x" * 200,
        " ".join(f"/{n}" for n in range(21)),
    ],
)
def test_what_is_no_path_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"traffic\.routes must be up to 20 paths"):
        FAMILY.checked(KEY, value)


def test_paths_of_other_apps_count_too_and_once() -> None:
    assert counted({KEY: "/b /a"}, ["/a", "/c"]) == ["/a", "/b", "/c"]
    assert counted({}, []) == []
    assert policy_text({}, {"traffic": None}) == ""
