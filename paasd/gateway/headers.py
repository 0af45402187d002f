"""Part `headers`: headers that the edge sets, adds and removes, of requests and of the app's answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from paasd.app_settings import Check, Key, one_of
from paasd.gateway.grammar import split_rules
from paasd.gateway.parts import Part, Values

VARIABLES = ("client_ip", "host", "request_id", "scheme", "path", "app")
_MOST = 50
_LONGEST = 4096
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,100}")
"""A token of RFC 9110 without `_`, which servers take for `-` or drop."""
_TEXT = re.compile(r"[\x20-\x7e]+")
_VARIABLE = re.compile(r"\{([a-z_]+)\}")
_RULE = re.compile(r"(set|add|remove)[ \t]+(\S+)(?:[ \t]+(.+))?", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')

_BETWEEN_TWO = "it is between two neighbours on the way, and the edge's own"
_SAYS_WHO = "the edge says in it who asks, which apps rely on"
_FOR_BOTH: Mapping[str, str] = {
    **dict.fromkeys(
        ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"), _BETWEEN_TWO
    ),
    "content-length": "it must be the body's length",
    "content-encoding": "the body would not be changed with it",
}
_OF_REQUESTS: Mapping[str, str] = {
    **_FOR_BOTH,
    **dict.fromkeys(
        ("x-real-ip", "forwarded", "x-request-id", "x-request-start", "x-paasd-user", "x-paasd-key"), _SAYS_WHO
    ),
    "host": "it is the name that was asked for",
    "expect": _BETWEEN_TWO,
    "traceparent": "it is set with traceparent on",
}
_OF_ANSWERS: Mapping[str, str] = {
    **_FOR_BOTH,
    "date": "it is the edge's own",
    "strict-transport-security": "it is set with tls:set APP hsts",
}


class Rule(NamedTuple):
    verb: str
    name: str
    value: str

    def __str__(self) -> str:
        if self.verb == "remove":
            return f"remove {self.name}"
        plain = not re.search(r'[;"\\]', self.value) and self.value == self.value.strip()
        escaped = re.sub(r'(["\\])', r"\\\1", self.value)
        return f"{self.verb} {self.name} " + (self.value if plain else f'"{escaped}"')


def rules(text: str, refused: Mapping[str, str]) -> list[Rule]:
    """Raises ValueError."""
    found = [_rule(each, refused) for each in split_rules(text)]
    if not 1 <= len(found) <= _MOST:
        raise ValueError(f"1 to {_MOST} rules such as set X-Frame-Options DENY; remove X-Powered-By")
    return found


def _rule(text: str, refused: Mapping[str, str]) -> Rule:
    found = _RULE.fullmatch(text)
    if not found:
        raise ValueError(
            f'rules set NAME VALUE, add NAME VALUE or remove NAME, and {text[:40]!a} is none (put a value with ; in "")'
        )
    verb, name, value = found[1].lower(), found[2], _value(found[3] or "")
    if not _NAME.fullmatch(name):
        raise ValueError(f"rules with names of letters, digits and hyphens, and {name!a} is none")
    if reason := _reason(name.lower(), refused):
        raise ValueError(f"rules without {name}: {reason}")
    if name.lower() == "vary" and verb != "add":
        raise ValueError(f"rules that only add {name}: caches rely on what is there")
    if (verb == "remove") == bool(value):
        raise ValueError("rules of the form set NAME VALUE, add NAME VALUE or remove NAME")
    return Rule(verb, name, value)


def _reason(name: str, refused: Mapping[str, str]) -> str | None:
    """Why the header is not to be changed."""
    if name.startswith("proxy-") or name == "proxy":
        return _BETWEEN_TWO
    if name.startswith("x-forwarded-") and refused is _OF_REQUESTS:
        return _SAYS_WHO
    if name.startswith("x-accel-"):
        return "it steers the edge itself"
    return refused.get(name)


def _value(text: str) -> str:
    """Without its quotes. A `;` needs them."""
    text = text.strip(" \t")
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if not quoted:
            raise ValueError(r'rules whose quoted values end with ", and have \" and \\ for " and \ ')
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    if text and not _TEXT.fullmatch(text):
        raise ValueError("rules with values of printable ASCII characters")
    if len(text) > _LONGEST:
        raise ValueError(f"rules with values of at most {_LONGEST} characters")
    for variable in _VARIABLE.findall(text):
        if variable not in VARIABLES:
            raise ValueError(f"rules with these variables: {', '.join(f'{{{each}}}' for each in VARIABLES)}")
    return text


def _check(refused: Mapping[str, str]) -> Check:
    return lambda value: "; ".join(map(str, rules(value, refused)))


_FORM = f"set NAME VALUE; add NAME VALUE; remove NAME, with {' '.join(f'{{{each}}}' for each in VARIABLES)} in values"
KEYS: Mapping[str, Key] = {
    "header.request": Key(_check(_OF_REQUESTS), f"Headers of requests: {_FORM}."),
    "header.response": Key(_check(_OF_ANSWERS), "Headers of the app's answers, in the same form."),
    "request-id": Key(one_of("on", "off"), "Whether answers have the X-Request-Id that the app got (off)."),
}


def policy(values: Values) -> dict[str, object] | None:
    """`{"request": [["set", "X-Tenant", "blog"]], "response": [...]}`"""
    request = rules(values["header.request"], _OF_REQUESTS) if "header.request" in values else []
    response = rules(values["header.response"], _OF_ANSWERS) if "header.response" in values else []
    if values.get("request-id") == "on":
        response.append(Rule("set", "X-Request-Id", "{request_id}"))
    part = {"request": [[*rule] for rule in request], "response": [[*rule] for rule in response]}
    return {name: found for name, found in part.items() if found} or None


PART = Part("headers", KEYS, policy)
