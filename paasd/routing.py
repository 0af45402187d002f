"""Which requests go where: the routes that the live instances of apps make."""

from __future__ import annotations

from collections.abc import Sequence

from paasd.config import Config
from paasd.edge_values import Endpoint, Route
from paasd.models import App, Release
from paasd.release import Releases
from paasd.run.instances import InstanceRow, Instances
from paasd.run.readiness import Readiness
from paasd.sleep_rules import SleepRules


class Routing:
    def __init__(
        self, config: Config, releases: Releases, instances: Instances, readiness: Readiness, sleep: SleepRules
    ) -> None:
        self._config = config
        self._releases = releases
        self._instances = instances
        self._readiness = readiness
        self._sleep = sleep

    async def of(self, app: App) -> Route:
        """The route that the database wants for an app, as far as its instances are ready."""
        release = await self._releases.current(app)
        if release is None or app.stopped:
            return Route(app.name)
        route = self.to(app, release, rows := await self._instances.of(app, "live"))
        asleep = not route.endpoints and any(row.asleep and row.process_type == "web" for row in rows)
        return await self.asleep(app, release) if asleep else route

    async def asleep(self, app: App, release: Release) -> Route:
        """Requests wait until it is awake."""
        return Route(app.name, (), release.number, hold=await self._sleep.hold(app))

    def to(self, app: App, release: Release, rows: Sequence[InstanceRow]) -> Route:
        """To these instances of a release."""
        return Route(app.name, self.endpoints(release, rows), release.number)

    def endpoints(self, release: Release, rows: Sequence[InstanceRow], weight: int = 1) -> tuple[Endpoint, ...]:
        """Of the web instances among `rows` that are awake and ready, in their order."""
        port = release.port or self._config.run.port
        web = sorted((row for row in rows if row.process_type == "web" and not row.asleep), key=lambda row: row.number)
        return tuple(Endpoint(row.address, port, weight) for row in self._readiness.serving(web))
