"""Part `compression`: answers made smaller on their way to visitors who can read them."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, one_of
from paasd.gateway.parts import Part

KEYS: Mapping[str, Key] = {
    "compression": Key(one_of("on", "off"), "Whether texts are compressed that the app sends uncompressed (off).")
}

PART = Part("compression", KEYS, lambda values: values.get("compression") == "on" or None)
