"""Part `rewrite`: paths that the app sees otherwise than they were asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paasd.app_settings import Key
from paasd.gateway.grammar import split_rules
from paasd.gateway.parts import Part, Values

_MOST = 100
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()+,=:@/-]{0,500}\*?")
_RULE = re.compile(r"(\S+)[ \t]*->[ \t]*(\S+)")
_FORM = "rules such as /old/* -> /new/*; /* -> /app/*; /a -> /b, with a * only at the end"


def rules(text: str) -> list[tuple[str, str]]:
    """Raises ValueError."""
    found = [_rule(each) for each in split_rules(text)]
    if not 1 <= len(found) <= _MOST:
        raise ValueError(f"1 to {_MOST} {_FORM}")
    return found


def _rule(text: str) -> tuple[str, str]:
    found = _RULE.fullmatch(text)
    if not found or not all(map(_is_path, found.groups())):
        raise ValueError(_FORM)
    if found[2].endswith("*") and not found[1].endswith("*"):
        raise ValueError(f"{_FORM}; there is nothing that the * of {found[2]} stands for")
    return found[1], found[2]


def _is_path(text: str) -> bool:
    """Nginx has such paths in their simplest form, without `//` and `..`, so no other would ever match."""
    return bool(_PATH.fullmatch(text)) and "//" not in text and not {".", ".."} & set(text.split("/"))


def _usual(value: str) -> str:
    return "; ".join(f"{before} -> {after}" for before, after in rules(value))


KEYS: Mapping[str, Key] = {
    "rewrite": Key(_usual, "Paths that the app sees otherwise: /old/* -> /new/*; /a -> /b; the first to match acts.")
}


def policy(values: Values) -> object | None:
    """`[["/old/*", "/new/*"]]`"""
    return [[*rule] for rule in rules(values["rewrite"])] if "rewrite" in values else None


PART = Part("rewrite", KEYS, policy)
