"""The private network of each project, and the firewall around all of them."""

from __future__ import annotations

from paasd.config import Config
from paasd.drivers.base import Driver
from paasd.models import App, Project
from paasd.projects import Projects
from paasd.run.firewall import Firewall
from paasd.run.instances import network_name


class Networks:
    def __init__(self, config: Config, projects: Projects, driver: Driver, firewall: Firewall) -> None:
        self._config = config
        self._projects = projects
        self._driver = driver
        self._firewall = firewall

    async def ensure(self, app: App) -> Project:
        """The app's project, its network made if it is missing."""
        project = await self._projects.get(app.organization_id, app.project_id)
        subnet = await self._driver.ensure_network(
            network_name(self._config.label, project),
            [project.subnet] if project.subnet else self._config.run.subnets(),
            [p.subnet for p in await self._projects.all() if p.subnet and p.id != project.id],
        )
        if subnet != project.subnet:
            await self._projects.set_subnet(project.id, subnet)
            await self.protect()
        return await self._projects.get(app.organization_id, app.project_id)

    async def protect(self) -> None:
        """Firewall rules for the networks of all projects, before anything runs in them."""
        subnets = sorted(p.subnet for p in await self._projects.all() if p.subnet)
        await self._firewall.apply(subnets, [self._config.http.port, self._config.http.https_port])
