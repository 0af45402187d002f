"""Part `balance`: which instance a request goes to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paasd.app_settings import Key, one_of
from paasd.gateway.parts import Part, Values

ALGORITHMS = ("round-robin", "least-connections", "ewma", "hash")
_SOURCE = re.compile(r"(ip)|(header):([A-Za-z0-9-]{1,64})|(cookie):([A-Za-z0-9_-]{1,64})")


def _source(value: str) -> str:
    found = _SOURCE.fullmatch(value.strip())
    if not found:
        raise ValueError("ip, header:NAME or cookie:NAME, such as header:X-Tenant or cookie:session")
    return f"header:{found[3].lower()}" if found[2] else found[0]


KEYS: Mapping[str, Key] = {
    "balance.algorithm": Key(one_of(*ALGORITHMS), "How an instance is chosen (round-robin)."),
    "balance.hash": Key(_source, "What hash goes by: ip, header:NAME or cookie:NAME (ip)."),
    "balance.sticky": Key(one_of("on", "off"), "Whether a cookie of the edge keeps a visitor at one instance (off)."),
}


def policy(values: Values) -> dict[str, object] | None:
    algorithm, source = values.get("balance.algorithm"), values.get("balance.hash", "ip")
    sticky = values.get("balance.sticky") == "on"
    if algorithm in (None, ALGORITHMS[0]) and not sticky:
        return None
    part: dict[str, object] = {"algorithm": algorithm or ALGORITHMS[0]}
    if algorithm == "hash" and source != "ip":
        part["variable"] = variable(source)
    if sticky:
        part["sticky"] = True
    return part


def variable(source: str) -> str:
    """Nginx's variable of `header:x-tenant` or `cookie:session`."""
    kind, _, name = source.partition(":")
    return f"http_{name.replace('-', '_')}" if kind == "header" else f"cookie_{name}"


def sticky(values: Values) -> dict[str, object] | None:
    """The part of the gate that sets the cookie."""
    return {"cookie": True} if values.get("balance.sticky") == "on" else None


PARTS = (Part("sticky", {}, sticky), Part("balance", KEYS, policy))
