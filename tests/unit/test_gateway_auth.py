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
