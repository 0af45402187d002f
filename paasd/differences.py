"""Where database, engine, edge and files disagree: what `doctor --state` shows. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from paasd.apps import Apps
from paasd.build.builds import Builds
from paasd.config import Config
from paasd.deploy import Deployer
from paasd.deployments import Deployments
from paasd.drivers.base import Driver
from paasd.errors import PaasdError
from paasd.models import App, InstanceState
from paasd.projects import Projects
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.route.serving import Serving
from paasd.routing import Routing
from paasd.run.instances import Instances, network_name
from paasd.source.repositories import Repositories
from paasd.switch_locks import SwitchLocks


class Differences:
    def __init__(
        self,
        config: Config,
        apps: Apps,
        projects: Projects,
        builds: Builds,
        deployments: Deployments,
        instances: Instances,
        driver: Driver,
        edge: Edge,
        domains: Domains,
        repositories: Repositories,
        deployer: Deployer,
        routing: Routing,
        switches: SwitchLocks,
        serving: Serving,
    ) -> None:
        self._config = config
        self._apps = apps
        self._projects = projects
        self._builds = builds
        self._deployments = deployments
        self._instances = instances
        self._driver = driver
        self._edge = edge
        self._domains = domains
        self._repositories = repositories
        self._deployer = deployer
        self._routing = routing
        self._switches = switches
        self._serving = serving

    async def __call__(self) -> list[str]:
        """What differs right now, a line each; empty when all is well."""
        apps = await self._apps.all()
        return [
            *await self._instance_differences(apps),
            *await self._route_differences(apps),
            *await self._network_differences(),
            *await self._edge.differences([await self._domains.site(app) for app in apps]),
            *await self._serving.differences(),
            *await self._file_differences(apps),
            *await self._unfinished(apps),
        ]

    async def _instance_differences(self, apps: Sequence[App]) -> list[str]:
        rows = {row.name: row for row in await self._instances.all()}
        actual, one_offs = await self._driver.survey(), await self._driver.one_offs()
        asleep = {name for name, row in rows.items() if row.asleep and row.state == "live"}
        found = [f"instance {name} is wanted but missing" for name in rows if name not in actual and name not in asleep]
        found += [f"container {name} is there but not wanted" for name in actual if name not in rows]
        found += [
            f"instance {name} is {actual[name].state}"
            for name in rows
            if name in actual and (actual[name].state is not InstanceState.RUNNING) != (name in asleep)
        ]
        found += [f"instance {row.name} was never switched to" for row in rows.values() if row.state == "new"]
        ids = {app.id for app in apps}
        return found + [f"one-off {name} belongs to no app" for name, app_id in one_offs.items() if app_id not in ids]

    async def _route_differences(self, apps: Sequence[App]) -> list[str]:
        routes, found = await self._edge.routes(), []
        for app in apps:
            if self._switches.is_held(app):
                continue  # a canary's route is nobody's fault
            try:
                wanted = await self._routing.of(app)
            except PaasdError as error:
                found.append(f"what the route of {app.name} should be cannot be told: {error.detail}")
            else:
                if routes.get(app.name) != wanted:
                    found.append(f"route of {app.name} is {routes.get(app.name)}, wanted {wanted}")
        return found + [f"route of {name} belongs to no app" for name in routes.keys() - {app.name for app in apps}]

    async def _network_differences(self) -> list[str]:
        present = set(await self._driver.networks())
        projects = {network_name(self._config.label, project): project for project in await self._projects.all()}
        used = {row.project_id for row in await self._instances.all()}
        found = [f"network {name} belongs to no project" for name in sorted(present - projects.keys())]
        found += [f"network {n} is missing" for n, p in projects.items() if p.id in used and n not in present]
        return found

    async def _file_differences(self, apps: Sequence[App]) -> list[str]:
        ids = {app.id for app in apps}
        found = [f"repository {name} belongs to no app" for name in self._repositories.names() if name not in ids]
        found += [f"build log {name} belongs to no build" for name in await self._builds.stray_logs()]
        return found + [f"{path} was left by a killed push" for path in self._repositories.leftovers()]

    async def _unfinished(self, apps: Sequence[App]) -> list[str]:
        """What is called under way, or locked, though nobody works on its app."""
        found = []
        for app in apps:
            if not self._deployer.is_pushed_to(app) and not self._switches.is_held(app):
                builds, deployments = await self._builds.unfinished(app), await self._deployments.unfinished(app)
                found += [
                    f"build {number} of {app.name} is called under way, but nothing works on it" for number in builds
                ]
                found += [
                    f"deployment {number} of {app.name} is called under way, but is not" for number in deployments
                ]
                found += [f"{path} locks a repository, but nobody pushes" for path in self._repositories.locks(app)]
        return found
