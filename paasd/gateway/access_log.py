"""Part `access_log`: whether the edge writes a line for each request of an app."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, one_of
from paasd.gateway.parts import Part, Values

KEYS: Mapping[str, Key] = {
    "access-log": Key(
        one_of("on", "query", "off"),
        "Whether requests are logged, for nginx:access-logs; query: with what follows the ?, tokens included (off).",
    )
}


def policy(values: Values) -> dict[str, object] | None:
    kind = values.get("access-log", "off")
    return {"query": kind == "query"} if kind != "off" else None


PART = Part("access_log", KEYS, policy)
