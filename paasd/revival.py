"""Starts an instance again that the database has as live: the same row, the same address."""

from __future__ import annotations

from dataclasses import replace

from paasd.config import Config
from paasd.deploy_settings import DeploymentSettings
from paasd.drivers.base import Driver
from paasd.models import App
from paasd.release import Releases
from paasd.resources import Resources
from paasd.route.domains import Domains
from paasd.run.instances import InstanceRow, spec_of
from paasd.run.networks import Networks
from paasd.storage import Storage, mounts_for


class Revival:
    """Callers hold the app's switch lock."""

    def __init__(
        self,
        config: Config,
        releases: Releases,
        driver: Driver,
        domains: Domains,
        networks: Networks,
        settings: DeploymentSettings,
        storage: Storage,
        resources: Resources,
    ) -> None:
        self._config = config
        self._releases = releases
        self._driver = driver
        self._domains = domains
        self._networks = networks
        self._settings = settings
        self._storage = storage
        self._resources = resources

    async def start(self, app: App, row: InstanceRow) -> None:
        """Also when it lost its address; nothing happens to one that runs as it should."""
        settings = await self._settings.of(app)
        release = await self._releases.get(app, row.release_id)
        project = await self._networks.ensure(app)
        url = await self._domains.url(app)
        instance = await self._driver.inspect(row.name)
        if instance is not None and instance.address != row.address:
            await self._driver.stop(row.name, settings.stop_timeout)
        mounts = mounts_for(await self._storage.ready(app, release), row.process_type)
        limits = (await self._resources.of(app)).limits(row.process_type)
        spec = spec_of(app, project, release, row, self._config, url, settings.stop_timeout, limits)
        await self._driver.start(replace(spec, mounts=mounts))
