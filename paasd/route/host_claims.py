"""Whose a host name is: rules over all of the box. Owns nothing; asked inside the transaction that adds a name."""

from __future__ import annotations

from paasd.config import HttpConfig
from paasd.database import Transaction
from paasd.errors import AlreadyExists, InvalidInput
from paasd.models import App
from paasd.route.host_names import base_of, both, is_wildcard, lies_in


async def refuse_taken(tx: Transaction, http: HttpConfig, app: App, name: str) -> None:
    """Raises InvalidInput for names of the box itself, AlreadyExists for those of any app, and where a wildcard would
    mix the names of two organizations."""
    await _refuse_of_the_box(tx, http, app, name)
    rows = await tx.fetch(
        "SELECT * FROM host_names WHERE name = ? OR organization_id <> ? AND (? OR substr(name, 1, 2) = '*.')",
        name,
        app.organization_id,
        is_wildcard(name),
    )
    for row in rows:
        if row["name"] == name:
            whose = "this app" if row["app_id"] == app.id else "another app on this box"
            raise AlreadyExists(f"{both(name)} already belongs to {whose}")
        if overlap(row["name"], name):
            raise AlreadyExists(
                f"{both(name)} and a name of another organization on this box lie in the same domain, and one of them"
                " is a wildcard",
                hint="Use host names without a wildcard, outside of the other's.",
            )


async def below(tx: Transaction, domain: str) -> list[str]:
    """Names of apps that are a domain or lie in it, and wildcards that would."""
    rows = await tx.fetch("SELECT name FROM host_names ORDER BY name")
    return [
        name
        for name in (row["name"] for row in rows)
        if lies_in(base_of(name), domain) or (is_wildcard(name) and overlap(name, domain))
    ]


def overlap(one: str, other: str) -> bool:
    """Whether one of two names lies in the other's domain, or would if it were a wildcard."""
    first, second = base_of(one), base_of(other)
    return lies_in(first, second) or lies_in(second, first)


async def _refuse_of_the_box(tx: Transaction, http: HttpConfig, app: App, name: str) -> None:
    panel = http.panel.lower()
    if panel and (name == panel or (is_wildcard(name) and overlap(name, panel))):
        raise InvalidInput(f"{name} is, or has in it, the host name of paasd itself", hint="Choose another one.")
    everywhere = [row["name"] for row in await tx.fetch("SELECT name FROM global_domains")]
    for domain in (http.domain.lower(), *everywhere):
        if lies_in(base_of(name), domain):
            raise InvalidInput(
                f"{both(name)} lies under the box's own domain, where each app already has its name",
                hint=f"{app.name}.{domain} is this app's; rename the app for another one.",
            )
        if is_wildcard(name) and overlap(name, domain):
            raise InvalidInput(
                f"{both(name)} has the box's own domain {domain} in it",
                hint="Use host names without a wildcard there.",
            )
