"""Who may ask at all, by address: the part `addresses`."""

from __future__ import annotations

import ipaddress

from paasd.app_settings import Key, words
from paasd.gateway.parts import Part, Values

_MOST = 1000
_WHAT = f"addresses or networks such as 192.0.2.7 10.0.0.0/8 2001:db8::/32, at most {_MOST}"


def networks(value: str) -> str:
    if "%" in value:  # a zone, which only this box would understand
        raise ValueError(_WHAT)
    checked = words(ipaddress.ip_network, _WHAT)(value)
    found = [str(ipaddress.ip_network(word)) for word in checked.split()]
    if not 1 <= len(found) <= _MOST:
        raise ValueError(_WHAT)
    return " ".join(dict.fromkeys(found))


KEYS = {
    "allow": Key(networks, "Addresses that may ask; all others get 403."),
    "deny": Key(networks, "Addresses that get 403, even if they are allowed."),
}


def policy(values: Values) -> object | None:
    """`{"allow": ["10.0.0.0/8"], "deny": [...]}`"""
    return {key: values[key].split() for key in KEYS if key in values} or None


PART = Part("addresses", KEYS, policy)
