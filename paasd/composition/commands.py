"""What runs for an app beside its instances: one-off commands, cron, shells, forwarded ports."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.composition.base import Base
from paasd.composition.run import RunParts
from paasd.composition.stores import Stores
from paasd.cron import Cron
from paasd.enter import Enter
from paasd.forward import Forwards
from paasd.one_off import OneOffs


@dataclass(frozen=True)
class CommandParts:
    one_offs: OneOffs
    cron: Cron
    enter: Enter
    forwards: Forwards


def compose_commands(base: Base, stores: Stores, run: RunParts) -> CommandParts:
    config, database = base.config, base.database
    apps, releases, instances = stores.apps, stores.releases, stores.instances
    one_offs = OneOffs(
        database,
        config,
        releases,
        stores.domains,
        base.driver,
        run.networks,
        stores.storage,
        stores.resources,
        stores.runs,
    )
    return CommandParts(
        one_offs=one_offs,
        cron=Cron(database, config, apps, releases, stores.entries, stores.runs, one_offs),
        enter=Enter(database, instances, base.driver),
        forwards=Forwards(database, config.run, apps, releases, instances),
    )
