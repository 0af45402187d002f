"""Part `maintenance`: an app that is being worked on answers nobody but a few."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.app_settings import Key, duration, one_of
from paasd.gateway.addresses import networks
from paasd.gateway.pages import html
from paasd.gateway.parts import Part, Values

KEYS: Mapping[str, Key] = {
    "maintenance": Key(one_of("on", "off"), "Whether requests get 503 and a page instead of the app (off)."),
    "maintenance.page": Key(html, "HTML of that page (the edge's own)."),
    "maintenance.allow": Key(networks, "Addresses that get the app all the same."),
    "maintenance.retry-after": Key(duration(1, 604_800), "When clients are told to try again (60s)."),
}


def policy(values: Values) -> dict[str, object] | None:
    if values.get("maintenance") != "on":
        return None
    seconds = round(float(values.get("maintenance.retry-after", 60)))
    return {"allow": values.get("maintenance.allow", "").split(), "seconds": seconds}


PART = Part("maintenance", KEYS, policy)
