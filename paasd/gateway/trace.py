"""Part `trace`: requests get the trace that they belong to (W3C Trace Context).

Not for all apps: whoever begins a trace decides whether it is sampled, and apps with tracing go by that."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, one_of
from paasd.gateway.parts import Part, Values

_FLAGS = {"on": "01", "unsampled": "00"}

KEYS: Mapping[str, Key] = {
    "traceparent": Key(
        one_of("on", "unsampled", "off"),
        "Whether requests that belong to no trace begin one, sampled or unsampled (off: passed as they come).",
    )
}


def policy(values: Values) -> dict[str, object] | None:
    flags = _FLAGS.get(values.get("traceparent", "off"))
    return {"flags": flags} if flags else None


PART = Part("trace", KEYS, policy)
