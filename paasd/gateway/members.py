"""Part `members`: an app that only those see who may see it in paasd.

Who they are, and the key of their sessions, is said by `identity/sign_ins.py`."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, duration, one_of
from paasd.gateway.parts import Part, Values

NAME = "members"
ON = "auth.members"
LINK = 300
"""Seconds for which a link holds; the edge says the same."""
_USUAL = 12 * 3600

KEYS: Mapping[str, Key] = {
    ON: Key(one_of("on", "off"), "Whether only those get to the app who may see it in paasd and signed in (off)."),
    "auth.members.time": Key(duration(300, 2_592_000), "How long they stay signed in, up to 30d (12h)."),
}


def is_on(values: Values) -> bool:
    return values.get(ON) == "on"


def seconds(values: Values) -> int:
    """How long a session holds."""
    return round(float(values.get("auth.members.time", _USUAL)))


PART = Part(NAME, KEYS, lambda values: None)
