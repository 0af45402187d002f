"""Apps from creation to destruction, with all that hangs on them: site, route, repository, images, network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from paasd.apps import Apps
from paasd.build.builder import Builder
from paasd.config import Config
from paasd.config_vars import ConfigVars
from paasd.deploy import Deployer
from paasd.drivers.base import Driver
from paasd.errors import EngineConflict, PaasdError
from paasd.models import Actor, App, Route, Secret, branch_name
from paasd.progress import Progress
from paasd.projects import Projects
from paasd.release import Releases
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.run.instances import network_name
from paasd.source.repositories import Repositories

_log = logging.getLogger(__name__)


class Lifecycle:
    def __init__(
        self,
        config: Config,
        apps: Apps,
        projects: Projects,
        config_vars: ConfigVars,
        repositories: Repositories,
        builder: Builder,
        releases: Releases,
        driver: Driver,
        domains: Domains,
        edge: Edge,
        deployer: Deployer,
    ) -> None:
        self._config = config
        self._apps = apps
        self._projects = projects
        self._config_vars = config_vars
        self._repositories = repositories
        self._builder = builder
        self._releases = releases
        self._driver = driver
        self._domains = domains
        self._edge = edge
        self._deployer = deployer
        self._changing = asyncio.Lock()

    async def sync_sites(self) -> dict[str, str]:
        """Make the edge's sites those of the database; returns why any was quarantined, by app."""
        async with self._changing:
            return await self._edge.sync_sites([await self._domains.site(app) for app in await self._apps.all()])

    async def create(
        self, actor: Actor, name: str, *, project: str | None = None, environment: str = "production"
    ) -> App:
        """An app with its repository and a site that says there is nothing yet. On failure nothing of it stays."""
        app = await self._apps.create(actor, name, project=project, environment=environment)
        try:
            await self._repositories.ensure(app)
            await self._edge.set_route(Route(app.name))
            await self._set_site(app)
        except BaseException:
            await self._discard(actor, app)
            raise
        return app

    async def rename(self, actor: Actor, app: App, name: str) -> App:
        """The new host name takes over from the old one."""
        route = await self._deployer.route_of(app)
        renamed = await self._apps.rename(actor, app, name)
        await self._edge.set_route(Route(renamed.name, route.endpoints, route.release))
        # Both sites in one step: the app's own domains cannot be in two of them.
        await self.sync_sites()
        await self._edge.remove_route(app.name)
        return renamed

    async def clone(self, actor: Actor, app: App, name: str, progress: Progress) -> App:
        """A new app with the code, config vars, checks and scale of `app`, running its live image; no domains."""
        progress.step(f"Cloning {app.name} to {name}")
        copy = await self.create(actor, name, environment=app.environment)
        try:
            await self._repositories.clone(app, copy)
            changes: Mapping[str, Secret | None] = await self._config_vars.get(app)
            await self._config_vars.change(actor, copy, changes)
            await self._apps.set_checks(copy, await self._apps.checks(app))
            if app.scale:
                await self._apps.set_scale(actor, copy, app.scale)
            if app.deploy_branch:
                await self._apps.set_deploy_branch(copy, app.deploy_branch)
            if current := await self._releases.current(app):
                await self._deployer.adopt(actor, copy, current, progress)
        except BaseException:
            await self.destroy(actor, copy)
            raise
        return await self._apps.get(copy.organization_id, copy.name)

    async def set_deploy_branch(self, app: App, branch: str) -> None:
        """Raises InvalidInput for what Git would not take as a branch."""
        await self._apps.set_deploy_branch(app, branch_name(branch))

    async def add_domains(self, actor: Actor, app: App, names: Sequence[str]) -> list[str]:
        """All of them or, when one is refused, those before it. Returns the app's host names."""
        for name in names:
            host = await self._domains.add(actor, app, name)
            try:
                await self._set_site(app)
            except PaasdError:
                await self._domains.remove(actor, app, host)
                raise
        return await self._domains.of(app)

    async def remove_domain(self, actor: Actor, app: App, name: str) -> list[str]:
        await self._domains.remove(actor, app, name)
        await self._set_site(app)
        return await self._domains.of(app)

    async def destroy(self, actor: Actor, app: App) -> None:
        """Stop and remove everything. An engine that cannot be reached refuses it before anything is lost."""
        await self._deployer.remove(app)
        await self._discard(actor, app)

    async def _discard(self, actor: Actor, app: App) -> None:
        project = await self._projects.get(app.organization_id, app.project_id)
        await self._builder.remove_logs(app)
        await self._repositories.remove(app.id)
        await self._apps.destroy(actor, app)
        # After the row, since the reconciler gives every app that has one its site and route back.
        await self._remove_site(app)
        await self._edge.remove_route(app.name)
        await self._builder.prune_images()
        if await self._projects.remove_if_empty(app.project_id):
            await self._remove_network(network_name(self._config.label, project))

    async def _set_site(self, app: App) -> None:
        async with self._changing:
            await self._edge.set_site(await self._domains.site(app))

    async def _remove_site(self, app: App) -> None:
        async with self._changing:
            await self._edge.remove_site(app.name)

    async def _remove_network(self, name: str) -> None:
        try:
            await self._driver.remove_network(name)
        except EngineConflict:
            _log.warning("network %s is still in use; the reconciler removes it later", name)
        except PaasdError as error:
            _log.warning("network %s stays for now: %s", name, error.detail)
