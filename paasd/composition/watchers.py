"""What looks at live apps by itself, all the time: health, load, sleep, and whether all is as it should be."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.autoscale import Autoscaler
from paasd.composition.parts import Parts
from paasd.differences import Differences
from paasd.health_subjects import Subjects
from paasd.health_watch import HealthWatch
from paasd.liveness import Liveness
from paasd.reconcile import Reconciler
from paasd.sleep import Sleep
from paasd.sleeper import Sleeper
from paasd.watch import Watch


@dataclass(frozen=True)
class Watchers:
    reconciler: Reconciler
    differences: Differences
    watch: Watch
    health_watch: HealthWatch
    autoscaler: Autoscaler
    sleeper: Sleeper


def compose_watchers(parts: Parts) -> Watchers:
    stores, edge = parts.stores, parts.edge.edge
    sleep = _sleep(parts)
    return Watchers(
        reconciler=_reconciler(parts, sleep),
        differences=_differences(parts),
        watch=Watch(
            stores.apps,
            stores.releases,
            stores.deployments,
            stores.instances,
            parts.base.driver,
            edge,
            parts.deploy.changes,
        ),
        health_watch=_health_watch(parts),
        autoscaler=_autoscaler(parts),
        sleeper=_sleeper(parts, sleep),
    )


def _health_watch(parts: Parts) -> HealthWatch:
    base, stores, edge, run, switches = parts.base, parts.stores, parts.edge, parts.run, parts.deploy.switches
    liveness = Liveness(
        base.database,
        base.driver,
        stores.instances,
        run.health,
        edge.routing,
        run.retirement,
        run.revival,
        stores.settings,
        switches,
    )
    return HealthWatch(
        base.database,
        Subjects(base.config.run, base.database, stores.apps, stores.releases, stores.instances, stores.domains),
        stores.apps,
        stores.instances,
        edge.edge,
        edge.routing,
        switches,
        run.probe,
        edge.readiness,
        liveness,
        run.hooks,
    )


def _sleep(parts: Parts) -> Sleep:
    base, stores, edge, run = parts.base, parts.stores, parts.edge, parts.run
    return Sleep(
        base.config.run,
        base.database,
        stores.apps,
        stores.releases,
        stores.instances,
        base.driver,
        run.health,
        edge.routing,
        edge.edge,
        stores.domains,
        stores.settings,
        stores.sleep_rules,
        run.revival,
        parts.deploy.switches,
    )


def _sleeper(parts: Parts, sleep: Sleep) -> Sleeper:
    stores, commands = parts.stores, parts.commands
    return Sleeper(
        parts.base.database,
        stores.sleep_rules,
        sleep,
        stores.apps,
        stores.instances,
        stores.runs,
        parts.edge.edge,
        parts.deploy.switches,
        (parts.deploy.deployer.is_pushed_to, commands.enter.is_inside, commands.forwards.are_open),
    )


def _autoscaler(parts: Parts) -> Autoscaler:
    stores = parts.stores
    return Autoscaler(
        parts.base.database,
        stores.autoscale_rules,
        stores.apps,
        stores.instances,
        parts.base.driver,
        parts.edge.edge,
        parts.deploy.changes,
        parts.deploy.switches,
        parts.base.config.run.autoscale_interval,
    )


def _reconciler(parts: Parts, sleep: Sleep) -> Reconciler:
    base, stores, edge, run = parts.base, parts.stores, parts.edge, parts.run
    return Reconciler(
        base.config,
        stores.apps,
        stores.projects,
        stores.releases,
        stores.builds,
        stores.deployments,
        stores.instances,
        run.retirement,
        base.driver,
        edge.edge,
        parts.build.repositories,
        parts.life.sites,
        edge.routing,
        parts.deploy.switches,
        run.networks,
        stores.settings,
        run.revival,
        sleep,
        edge.serving,
    )


def _differences(parts: Parts) -> Differences:
    base, stores, edge, deploy = parts.base, parts.stores, parts.edge, parts.deploy
    return Differences(
        base.config,
        stores.apps,
        stores.projects,
        stores.builds,
        stores.deployments,
        stores.instances,
        base.driver,
        edge.edge,
        stores.domains,
        parts.build.repositories,
        deploy.deployer,
        edge.routing,
        deploy.switches,
        edge.serving,
    )
