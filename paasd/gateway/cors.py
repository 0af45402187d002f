"""Part `cors`: which other sites' scripts may use the app from a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from paasd.app_settings import Key, duration, one_of, words
from paasd.gateway.parts import Part, Values

_MOST = 100
_METHODS = "GET HEAD POST"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ORIGIN = re.compile(rf"(https?)://({_HOST}|\*\.{_HOST}\.{_LABEL}|\[[0-9a-f:.]{{2,45}}\])(?::([1-9][0-9]{{0,4}}))?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_USUAL_PORTS = {"http": "80", "https": "443"}
_WHAT = f"* or at most {_MOST} origins such as https://app.example.org https://*.example.org http://localhost:3000"


def _origin(text: str) -> str:
    """As browsers write it."""
    found = _ORIGIN.fullmatch(text.lower())
    if not found:
        raise ValueError(_WHAT)
    scheme, host, port = found.groups()
    if port and int(port) > 65535:
        raise ValueError(_WHAT)
    return f"{scheme}://{host}" + (f":{port}" if port and port != _USUAL_PORTS[scheme] else "")


def _origins(value: str) -> str:
    if value.strip() == "*":
        return "*"
    found = [_origin(word) for word in value.replace(",", " ").split()]
    if not 1 <= len(found) <= _MOST:
        raise ValueError(_WHAT)
    return " ".join(dict.fromkeys(found))


def _token(word: str) -> None:
    if not _TOKEN.fullmatch(word):
        raise ValueError


def _names(what: str, change: Callable[[str], str] = str) -> Callable[[str], str]:
    def check(value: str) -> str:
        found = words(_token, what)(change(value)).split()
        if not 1 <= len(found) <= _MOST:
            raise ValueError(what)
        return " ".join(found)

    return check


KEYS: Mapping[str, Key] = {
    "cors.origins": Key(_origins, "Sites whose scripts may use the app from a browser: * or origins (none)."),
    "cors.methods": Key(_names("methods such as GET PUT DELETE", str.upper), f"With which methods ({_METHODS})."),
    "cors.headers": Key(_names("names of headers, or *"), "With which headers of requests (the simple ones)."),
    "cors.expose": Key(_names("names of headers, or *"), "Which headers of answers they may read (the simple ones)."),
    "cors.credentials": Key(one_of("on", "off"), "Whether with cookies and passwords; not with * (off)."),
    "cors.max-age": Key(duration(0, 86400), "How long browsers need not ask again (10m)."),
}


def check(values: Values) -> None:
    if values.get("cors.credentials") == "on":
        for key in ("cors.origins", "cors.methods", "cors.headers", "cors.expose"):
            if values.get(key) == "*":
                raise ValueError(
                    f"{key} * and cors.credentials on do not go together: any site could act as your visitors"
                )


def policy(values: Values) -> dict[str, object] | None:
    if "cors.origins" not in values:
        return None
    origins = values["cors.origins"].split()
    part: dict[str, object] = {
        "origins": origins,
        "methods": ", ".join(values.get("cors.methods", _METHODS).split()),
        "seconds": round(float(values.get("cors.max-age", 600))),
    }
    for key in ("headers", "expose"):
        if f"cors.{key}" in values:
            part[key] = ", ".join(values[f"cors.{key}"].split())
    if values.get("cors.credentials") == "on" and origins != ["*"]:
        part["credentials"] = True
    return part


PART = Part("cors", KEYS, policy, check)
