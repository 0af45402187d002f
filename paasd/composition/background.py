"""Who does the jobs and who is told of events: each part lists its own, here they are put together."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.composition.parts import Parts
from paasd.events import Subscriptions
from paasd.housekeeping import Housekeeping
from paasd.jobs.workers import Handler, Workers


@dataclass(frozen=True)
class Background:
    workers: Workers
    subscriptions: Subscriptions


def compose_background(parts: Parts) -> Background:
    base = parts.base
    subscribers = [
        *parts.commands.cron.subscribers(),
        *parts.edge.issuing.subscribers(),
        *parts.edge.stapling.subscribers(),
    ]
    return Background(
        workers=Workers(base.database, parts.stores.jobs, base.config.jobs, _handlers(parts)),
        subscriptions=Subscriptions(base.database, subscribers),
    )


def _handlers(parts: Parts) -> list[Handler]:
    stores = parts.stores
    housekeeping = Housekeeping(
        parts.base.config.keep,
        stores.events,
        stores.jobs,
        stores.deployments,
        stores.releases,
        parts.build.builder,
    )
    return [
        *housekeeping.handlers(),
        *parts.life.disk_use.handlers(),
        *parts.life.previews.handlers(),
        *stores.storage.handlers(),
        *parts.commands.one_offs.handlers(),
        *parts.commands.cron.handlers(),
        *parts.edge.issuing.handlers(),
        *parts.edge.stapling.handlers(),
    ]
