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
_HASHED = re.compile(rf"\$pbkdf2-sha256\${_ITERATIONS}\$[A-Za-z0-9_-]{{22,64}}\$[A-Za-z0-9_-]{{43}}")
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


_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATH = r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,500}(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,500})?"
_URL = re.compile(rf"(https?)://({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?({_PATH})?")
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_NOT_FORWARDED = re.compile(
    r"host|connection|content-.*|transfer-encoding|upgrade|te|trailer|keep-alive|expect|proxy.*|forwarded|x-forwarded-.*"
    r"|x-real-ip|x-request-.*|x-paasd-.*|set-cookie|range|if-.*"
)


def _url(value: str) -> str:
    scheme, rest = value.strip()[:8].lower(), value.strip()[8:]
    host, slash, path = rest.partition("/")
    found = _URL.fullmatch(scheme + host.lower() + slash + path)
    if not found or found[2].rpartition(".")[2].isdigit() or int(found[3] or 1) > 65535 or len(found[2]) > 253:
        raise ValueError(
            "an address such as https://auth.example.org/check, or http:// for an app of this box; a host name, no user"
        )
    return found[0]


def _forwarded(value: str) -> str:
    names = list(dict.fromkeys(value.replace(",", " ").lower().split()))
    if not 1 <= len(names) <= 20 or any(not _NAME.fullmatch(n) or _NOT_FORWARDED.fullmatch(n) for n in names):
        raise ValueError("up to 20 names of headers such as Remote-User Remote-Groups, none that the edge sets itself")
    return " ".join(names)


def _forward(url: str, headers: str) -> dict[str, object]:
    found = _URL.fullmatch(url)
    assert found is not None
    scheme, host, port, path = found.groups()
    return {
        "tls": scheme == "https",
        "host": host,
        "authority": f"{host}:{port}" if port else host,
        "port": int(port or (443 if scheme == "https" else 80)),
        "path": path or "/",
        "headers": headers.split(),
    }


KEYS: Mapping[str, Key] = {
    "auth.basic": Key(
        _users, "Names and passwords that visitors must give, as user:password; shown without the passwords.", _names
    ),
    "auth.forward": Key(
        _url, "Address that is asked about each request: 2xx lets it pass, 401, 403 and redirects are its answer."
    ),
    "auth.forward-headers": Key(_forwarded, "Headers of its answer that the app gets, such as Remote-User (none)."),
}


def policy(values: Values) -> dict[str, object] | None:
    part: dict[str, object] = {}
    if "auth.basic" in values:
        part["basic"] = dict(word.split(":", 1) for word in values["auth.basic"].split())
    if "auth.forward" in values:
        part["forward"] = _forward(values["auth.forward"], values.get("auth.forward-headers", ""))
    return part or None


PART = Part("auth", KEYS, policy)
