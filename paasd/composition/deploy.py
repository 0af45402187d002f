"""The main job: what makes another release of an app the live one."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.admission import Admission
from paasd.canary import Canary
from paasd.changes import Changes
from paasd.composition.base import Base
from paasd.composition.build import BuildParts
from paasd.composition.edge import EdgeParts
from paasd.composition.run import RunParts
from paasd.composition.stores import Stores
from paasd.deploy import Deployer
from paasd.go_live import GoLive
from paasd.recreate import Recreate
from paasd.switch_locks import SwitchLocks


@dataclass(frozen=True)
class DeployParts:
    switches: SwitchLocks
    admission: Admission
    canary: Canary
    deployer: Deployer
    changes: Changes


def compose_deploy(base: Base, stores: Stores, build: BuildParts, edge: EdgeParts, run: RunParts) -> DeployParts:
    switches, admission = SwitchLocks(), Admission(stores.settings)
    canary = Canary(base.driver, edge.routing, edge.edge)
    go_live = _go_live(base, stores, edge, run, canary)
    return DeployParts(
        switches=switches,
        admission=admission,
        canary=canary,
        deployer=Deployer(
            stores.apps,
            stores.config_vars,
            build.builder,
            stores.releases,
            stores.deployments,
            admission,
            go_live,
            stores.registries,
            switches,
        ),
        changes=Changes(
            stores.apps,
            stores.config_vars,
            build.builder,
            stores.releases,
            stores.deployments,
            admission,
            stores.instances,
            run.retirement,
            go_live,
            switches,
        ),
    )


def _go_live(base: Base, stores: Stores, edge: EdgeParts, run: RunParts, canary: Canary) -> GoLive:
    recreate = Recreate(base.driver, stores.instances, run.retirement, run.rollout, edge.routing, edge.edge)
    return GoLive(
        base.database,
        stores.apps,
        stores.releases,
        edge.routing,
        stores.deployments,
        stores.settings,
        stores.instances,
        run.networks,
        stores.storage,
        run.tasks,
        run.rollout,
        recreate,
        canary,
        run.retirement,
        stores.domains,
        edge.edge,
        stores.quotas,
    )
