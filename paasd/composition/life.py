"""How apps come and go, and what is copied of them and kept for them."""

from __future__ import annotations

from dataclasses import dataclass

from paasd.app_sites import AppSites
from paasd.composition.base import Base
from paasd.composition.build import BuildParts
from paasd.composition.deploy import DeployParts
from paasd.composition.edge import EdgeParts
from paasd.composition.stores import Stores
from paasd.disk_use import DiskUse
from paasd.lifecycle import Lifecycle
from paasd.previews import Previews
from paasd.snapshots import Snapshots
from paasd.volume_files import VolumeFiles


@dataclass(frozen=True)
class LifeParts:
    sites: AppSites
    lifecycle: Lifecycle
    previews: Previews
    snapshots: Snapshots
    disk_use: DiskUse
    files: VolumeFiles


def compose_life(base: Base, stores: Stores, build: BuildParts, edge: EdgeParts, deploy: DeployParts) -> LifeParts:
    config, database, quotas, storage = base.config, base.database, stores.quotas, stores.storage
    apps, projects = stores.apps, stores.projects
    sites = AppSites(apps, stores.domains, edge.edge, database)
    lifecycle = _lifecycle(base, stores, build, edge, deploy, sites)
    snapshots = Snapshots(config, storage, base.volumes, apps, stores.releases, deploy.changes)
    disk_use = DiskUse(config, database, stores.jobs, quotas, projects, apps, storage, base.volumes, build.images)
    return LifeParts(
        sites=sites,
        lifecycle=lifecycle,
        previews=Previews(database, apps, stores.config_vars, lifecycle, sites, stores.jobs, quotas.gate),
        snapshots=snapshots,
        disk_use=disk_use,
        files=VolumeFiles(config, database, storage, base.volumes, projects, quotas, snapshots.image, disk_use.soon),
    )


def _lifecycle(
    base: Base, stores: Stores, build: BuildParts, edge: EdgeParts, deploy: DeployParts, sites: AppSites
) -> Lifecycle:
    return Lifecycle(
        base.config,
        stores.apps,
        stores.projects,
        stores.config_vars,
        build.repositories,
        stores.builds,
        build.builder,
        stores.releases,
        base.driver,
        stores.instances,
        stores.domains,
        deploy.deployer,
        deploy.changes,
        edge.routing,
        deploy.switches,
        stores.entries,
        base.database,
        sites,
    )
