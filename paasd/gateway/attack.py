"""Part `attack`: while an app is flooded, only browsers that have proved some work get through."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, one_of
from paasd.gateway.parts import Part, Values

_BITS = 18
"""A quarter of a million hashes: less than a second in a browser, and much more than the request that asks for it."""

KEYS: Mapping[str, Key] = {
    "under-attack": Key(
        one_of("on", "off"), "Whether only browsers that have done a short sum are let in, and nothing else (off)."
    )
}


def policy(values: Values) -> dict[str, object] | None:
    return {"bits": _BITS} if values.get("under-attack") == "on" else None


PART = Part("attack", KEYS, policy)
