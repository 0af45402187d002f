"""Starts an instance again that the database has as live: the same row, the same address."""

from __future__ import annotations

from paasd.config import Config
from paasd.deploy_settings import DeploymentSettings
from paasd.drivers.base import Driver
from paasd.models import App
from paasd.release import Releases
from paasd.route.domains import Domains
from paasd.run.instances import InstanceRow, spec_of
from paasd.run.networks import Networks


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
    ) -> None:
        self._config = config
        self._releases = releases
        self._driver = driver
        self._domains = domains
        self._networks = networks
        self._settings = settings

    async def start(self, app: App, row: InstanceRow) -> None:
        """Also when it lost its address; nothing happens to one that runs as it should."""
        settings = await self._settings.of(app)
        release = await self._releases.get(app, row.release_id)
        project = await self._networks.ensure(app)
        url = await self._domains.url(app)
        instance = await self._driver.inspect(row.name)
        if instance is not None and instance.address != row.address:
            await self._driver.stop(row.name, settings.stop_timeout)
        await self._driver.start(spec_of(app, project, release, row, self._config, url, settings.stop_timeout))
