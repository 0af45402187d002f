"""Gives apps of a bench their policies, by the settings that users would set."""

from __future__ import annotations

from collections.abc import Mapping

from paasd.edge_values import Site
from paasd.gateway.policy import KEYS, pages_text, policy_text
from tests.integration.edge.conftest import Bench


async def set_policy(bench: Bench, app: str, more: Mapping[str, object | None] | None = None, **settings: str) -> None:
    """`balance__sticky="on"` sets balance.sticky, `request_id` request-id; nothing takes the policy away. `more`: other
    parts."""
    values = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    checked = {key: KEYS[key].check(value) for key, value in values.items()}
    site = Site(app, (f"{app}.test",), policy=policy_text(checked, more), pages=pages_text(checked))
    await bench.edge.set_site(site)
