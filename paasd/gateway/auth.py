"""Part `auth`: who must say who they are before they reach the app. Passwords are kept as slow hashes only."""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from paasd.app_settings import Key
from paasd.errors import InvalidInput
from paasd.gateway.parts import Part, Values

_MOST = 50
_ITERATIONS = 200_000
_HASHED = re.compile(r"\$pbkdf2-sha256\$[1-9][0-9]{3,5}\$[A-Za-z0-9_-]{22,64}\$[A-Za-z0-9_-]{43}")
_USER = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_PASSWORD = re.compile(r"[^\s\x00-\x1f\x7f]{8,200}")
_WHAT = (
    f"auth.basic must be up to {_MOST} of user:password between spaces,"
    " passwords with 8 to 200 characters and no spaces"
)


def _users(value: str) -> str:
    """`alice:$pbkdf2-sha256$…`, so that what was stored may be given again. What is wrong is not repeated."""
    found: dict[str, str] = {}
    for word in value.split():
        user, _, password = word.partition(":")
        if not _USER.fullmatch(user) or not _PASSWORD.fullmatch(password) or user in found or len(found) == _MOST:
            raise InvalidInput(_WHAT, hint="Write for example: edge:set blog auth.basic alice:correct-horse")
        found[user] = password if _HASHED.fullmatch(password) else _hashed(password)
    if not found:
        raise InvalidInput(_WHAT)
    return " ".join(f"{user}:{password}" for user, password in found.items())


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    derived = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    return f"$pbkdf2-sha256${_ITERATIONS}${_encoded(salt)}${_encoded(derived)}"


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _names(value: str) -> str:
    return " ".join(word.partition(":")[0] for word in value.split())


KEYS: Mapping[str, Key] = {
    "auth.basic": Key(
        _users, "Names and passwords that visitors must give, as user:password; shown without the passwords.", _names
    ),
}


def policy(values: Values) -> dict[str, object] | None:
    if "auth.basic" not in values:
        return None
    return {"basic": dict(word.split(":", 1) for word in values["auth.basic"].split())}


PART = Part("auth", KEYS, policy)
