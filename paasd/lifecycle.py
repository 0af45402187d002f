"""Apps from creation to destruction, with all that hangs on them: site, route, repository, images, network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from paasd import failpoints
from paasd.active_push import ActivePush
from paasd.app_settings import copy_settings
from paasd.app_sites import AppSites, tidy
from paasd.apps import Apps, OnCreate
from paasd.build.builder import Builder
from paasd.build.builds import Builds
from paasd.changes import Changes
from paasd.config import Config
from paasd.config_vars import ConfigVars
from paasd.cron_entries import CronEntries
from paasd.database import Database
from paasd.deploy import Deployer
from paasd.drivers.base import Driver
from paasd.errors import Cancelled
from paasd.models import Actor, App, Secret
from paasd.names import branch_name
from paasd.progress import Progress
from paasd.projects import Projects
from paasd.release import Releases
from paasd.route.domains import Domains
from paasd.routing import Routing
from paasd.run.instances import Instances, network_name
from paasd.source.repositories import Repositories
from paasd.switch_locks import SwitchLocks

_log = logging.getLogger(__name__)

_STOP_TIMEOUT = 5
"""Seconds that instances of a destroyed app get to end; nobody sends them requests any more."""


@dataclass(frozen=True)
class _Remains:
    """What is left of an app when its row is gone."""

    app: App
    instances: Sequence[str]
    network: str | None
    """The project's, when the project went with the app."""
    led_from: Sequence[App]
    """Other apps that had paths answered by it."""


class Lifecycle:
    def __init__(
        self,
        config: Config,
        apps: Apps,
        projects: Projects,
        config_vars: ConfigVars,
        repositories: Repositories,
        builds: Builds,
        builder: Builder,
        releases: Releases,
        driver: Driver,
        instances: Instances,
        domains: Domains,
        deployer: Deployer,
        changes: Changes,
        routing: Routing,
        switches: SwitchLocks,
        entries: CronEntries,
        database: Database,
        sites: AppSites,
    ) -> None:
        self._config = config
        self._apps = apps
        self._projects = projects
        self._config_vars = config_vars
        self._repositories = repositories
        self._builds = builds
        self._builder = builder
        self._releases = releases
        self._driver = driver
        self._instances = instances
        self._domains = domains
        self._deployer = deployer
        self._changes = changes
        self._routing = routing
        self._switches = switches
        self._entries = entries
        self._database = database
        self._sites = sites

    async def create(
        self,
        actor: Actor,
        name: str,
        *,
        project: str | None = None,
        environment: str = "production",
        also: OnCreate | None = None,
    ) -> App:
        """An app with its repository and a site that says there is nothing yet. On failure nothing of it stays."""
        self._domains.refuse_reserved(name)
        app = await self._apps.create(actor, name, project=project, environment=environment, also=also)
        try:
            await self._repositories.ensure(app)
            await self._sites.begin(app)
        except BaseException:
            await asyncio.shield(self._take_back(actor, app))
            raise
        return app

    async def rename(self, actor: Actor, app: App, name: str, progress: Progress) -> App:
        """The new host name takes over from the old one; what is going live right now goes live first. An edge that
        does not serve the new one refuses it: the app keeps its old name."""
        self._domains.refuse_reserved(name)
        if self._switches.is_held(app):
            progress.step(f"Waiting for the release of {app.name} that is going live")
        async with self._switches.of(app):
            app = await self._apps.refresh(app)
            return await self._sites.rename(actor, app, name, await self._routing.of(app))

    async def clone(self, actor: Actor, app: App, name: str, progress: Progress) -> App:
        """A new app with the code, config vars, checks and scale of `app`, running its live image; no domains,
        redirects or routes."""
        progress.step(f"Cloning {app.name} to {name}")
        copy = await self.create(actor, name, environment=app.environment)
        try:
            await self._repositories.clone(app, copy)
            changes: Mapping[str, Secret | None] = await self._config_vars.get(app)
            await self._config_vars.change(actor, copy, changes)
            await self._apps.set_checks(actor, copy, await self._apps.checks(app))
            async with self._database.transaction() as tx:
                await copy_settings(tx, app, copy, without=("maintenance",))
            await self._sites.set(copy)  # it was made before, and the settings may keep clients out
            await self._entries.copy(actor, app, copy)
            if app.scale:
                await self._apps.set_scale(actor, copy, app.scale)
            if app.deploy_branch:
                await self._apps.set_deploy_branch(copy, app.deploy_branch)
            if current := await self._releases.current(app):
                await self._changes.adopt(actor, copy, current, progress)
        except BaseException:
            await asyncio.shield(self._take_back(actor, copy))
            raise
        return await self._apps.refresh(copy)

    async def set_deploy_branch(self, app: App, branch: str) -> None:
        """Raises InvalidInput for what Git would not take as a branch."""
        await self._apps.set_deploy_branch(app, branch_name(branch))

    async def destroy(self, actor: Actor, app: App) -> None:
        """Stop and remove everything. An engine that cannot be reached refuses it before anything is lost. After that
        the app is gone with its row: what cannot be removed with it is left to the reconciler."""
        await self._driver.networks()
        remains = await self._remove_row(actor, app)
        await failpoints.hit("app-row-removed")
        await asyncio.shield(self._clear(remains))

    async def _take_back(self, actor: Actor, app: App) -> None:
        """Nothing of an app that could not be made stays. Raises nothing: that would hide why it could not."""
        try:
            remains = await self._remove_row(actor, app)
        except Exception:
            _log.exception("%s could not be taken back", app.name)
        else:
            await self._clear(remains)

    async def _remove_row(self, actor: Actor, app: App) -> _Remains:
        """First, in one transaction: from here on nothing that belongs to the app is wanted by anybody."""
        self._end_changes(app)  # one may hold the lock
        async with self._switches.of(app):
            project = await self._projects.get(app.organization_id, app.project_id)
            names = [row.name for row in await self._instances.of(app)]
            routed = await self._domains.path_routes.leading_to(app)
            led_from = [other for other in await self._apps.of(app.organization_id) if other.id in routed]
            last = await self._apps.destroy(actor, app)
        return _Remains(app, names, network_name(self._config.label, project) if last else None, led_from)

    async def _clear(self, remains: _Remains) -> None:
        """Each step by itself, so that one that fails does not keep the others from being done."""
        app = remains.app
        await tidy(f"route of {app.name}", lambda: self._sites.drop_route(app.name))
        await tidy(f"site of {app.name}", lambda: self._sites.drop(app.name))
        for other in remains.led_from:
            await tidy(f"site of {other.name}", partial(self._sites.set, other))
        if push := self._end_changes(app):
            await push.done.wait()
        await tidy(f"instances of {app.name}", lambda: self._stop_all(remains))
        await tidy(f"repository of {app.name}", lambda: self._repositories.remove(app.id))
        await tidy(f"build logs of {app.name}", self._builds.remove_stray_logs)
        await tidy(f"images of {app.name}", self._builder.prune_images)
        if network := remains.network:
            self._instances.forget_project(app.project_id)
            await tidy(f"network {network}", lambda: self._driver.remove_network(network))

    def _end_changes(self, app: App) -> ActivePush | None:
        reason = Cancelled(f"{app.name} was destroyed")
        self._changes.cancel(app, reason)
        return self._deployer.end_push(app, reason)

    async def _stop_all(self, remains: _Remains) -> None:
        """Instances, one-off commands too."""
        one_offs = [name for name, app_id in (await self._driver.one_offs()).items() if app_id == remains.app.id]
        stops = (self._driver.stop(name, _STOP_TIMEOUT) for name in [*remains.instances, *one_offs])
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
