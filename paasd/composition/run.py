"""The stage run: what starts, checks and ends instances."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.build.network import BuildNetwork
from paasd.composition.base import Base
from paasd.composition.edge import EdgeParts
from paasd.composition.stores import Stores
from paasd.revival import Revival
from paasd.run.failure_hooks import FailureHooks
from paasd.run.firewall import Firewall
from paasd.run.health import Health
from paasd.run.logs import Logs
from paasd.run.networks import Networks
from paasd.run.probe import Probe
from paasd.run.retire import Retirement
from paasd.run.rollout import Rollout
from paasd.run.tasks import Tasks


@dataclass(frozen=True)
class RunParts:
    networks: Networks
    probe: Probe
    hooks: FailureHooks
    health: Health
    rollout: Rollout
    tasks: Tasks
    retirement: Retirement
    revival: Revival
    logs: Logs


def compose_run(base: Base, stores: Stores, edge: EdgeParts) -> RunParts:
    config, driver = base.config, base.driver
    instances, resources = stores.instances, stores.resources
    firewall = Firewall(config, BuildNetwork(config.build, base.engine).subnets_and_services)
    networks = Networks(config, stores.projects, driver, firewall)
    probe, hooks = Probe(driver), FailureHooks(driver, config.run)
    health = Health(driver, probe, hooks)
    return RunParts(
        networks=networks,
        probe=probe,
        hooks=hooks,
        health=health,
        rollout=Rollout(driver, instances, health, config, resources),
        tasks=Tasks(driver, config, resources),
        retirement=Retirement(driver, instances, edge.edge.in_flight, config.run),
        revival=Revival(
            config,
            stores.releases,
            driver,
            stores.domains,
            networks,
            stores.settings,
            stores.storage,
            resources,
        ),
        logs=Logs(driver),
    )
