"""What of auth.basic is stored, shown and told to the edge."""

from __future__ import annotations

import json

import pytest

from paasd.app_settings import Family
from paasd.errors import InvalidInput
from paasd.gateway.policy import COMMAND, KEYS, policy_text

FAMILY = Family("edge", COMMAND, "edge setting", KEYS)


def test_passwords_are_stored_hashed_and_shown_not_at_all() -> None:
    stored = FAMILY.checked("auth.basic", "alice:correct-horse  bob:battery:staple")
    assert "horse" not in stored and "staple" not in stored
    assert stored != FAMILY.checked("auth.basic", "alice:correct-horse bob:battery:staple"), "salted"
    assert FAMILY.checked("auth.basic", stored) == stored, "what is stored may be given again"
    assert KEYS["auth.basic"].shown(stored) == "alice bob"
    told = json.loads(policy_text({"auth.basic": stored}))["auth"]["basic"]
    assert set(told) == {"alice", "bob"} and all(each.startswith("$pbkdf2-sha256$200000$") for each in told.values())


@pytest.mark.parametrize(
    "value",
    [
        *("alice", "alice:", "alice:short", ":password1", "a b:password1", "alice:password1 alice:password2", " "),
        *(f"{'a' * 65}:password1", f"alice:{'p' * 201}", "älice:password1", 'a"b:password1', "alice:pass\x00word"),
        " ".join(f"user{number}:$pbkdf2-sha256$1000${'a' * 22}${'b' * 43}" for number in range(51)),
    ],
)
def test_what_is_wrong_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"auth\.basic must be up to 50 of user:password") as error:
        FAMILY.checked("auth.basic", value)
    assert "password1" not in str(error.value) and "short" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "usual", "told"),
    [
        ("HTTPS://Auth.Example.org", "https://auth.example.org", (True, "auth.example.org", 443, "/")),
        (
            "https://a.b:8443/Check?x=Y%20z",
            "https://a.b:8443/Check?x=Y%20z",
            (True, "a.b:8443", 8443, "/Check?x=Y%20z"),
        ),
        ("http://auth.localhost/x", "http://auth.localhost/x", (False, "auth.localhost", 80, "/x")),
    ],
)
def test_forward(value: str, usual: str, told: tuple[object, ...]) -> None:
    assert FAMILY.checked("auth.forward", value) == FAMILY.checked("auth.forward", usual) == usual
    headers = FAMILY.checked("auth.forward-headers", "Remote-User, remote-groups Remote-User")
    forward = json.loads(policy_text({"auth.forward": usual, "auth.forward-headers": headers}))["auth"]["forward"]
    assert tuple(forward[key] for key in ("tls", "authority", "port", "path")) == told
    assert forward["headers"] == ["remote-user", "remote-groups"]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "auth.example.org",
            "ftp://a.b",
            "https://",
            "https://a b",
            "https://user@a.b/",
            "https://a.b:0/",
            "https://a.b#x",
        ),
        *(
            "https://a.b:99999",
            "http://169.254.169.254/",
            "https://127.0.0.1",
            "https://[::1]/",
            "https://a.b/x\ty",
            "https:/a",
        ),
        *(
            "https://a_b.c/",
            "https://.b/",
            "https://a.b/\r\nX: y",
            "https://a.b/\x00",
            "https://ä.b/",
            f"https://a.b/{'x' * 501}",
        ),
        *("http://2130706433/", "unix:/x", "https://a.b\\c/", "https://a.b?x"),
    ],
)
def test_what_cannot_be_asked(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"auth\.forward must be an address such as"):
        FAMILY.checked("auth.forward", value)


@pytest.mark.parametrize(
    "value", ["Host", "X-Forwarded-For", "a:b", "a_b", "Content-Length", "Connection", "set-cookie", ","]
)
def test_headers_that_cannot_be_forwarded(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"auth\.forward-headers must be up to 20 names"):
        FAMILY.checked("auth.forward-headers", value)
