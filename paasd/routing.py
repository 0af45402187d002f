"""Which requests go where: the routes that the live instances of apps make."""

from __future__ import annotations

from collections.abc import Sequence

from paasd.config import Config
from paasd.models import App, Endpoint, Release, Route
from paasd.release import Releases
from paasd.run.instances import InstanceRow, Instances
from paasd.run.readiness import Readiness


class Routing:
    def __init__(self, config: Config, releases: Releases, instances: Instances, readiness: Readiness) -> None:
        self._config = config
        self._releases = releases
        self._instances = instances
        self._readiness = readiness

    async def of(self, app: App) -> Route:
        """The route that the database wants for an app, as far as its instances are ready."""
        release = await self._releases.current(app)
        if release is None or app.stopped:
            return Route(app.name)
        return self.to(app, release, await self._instances.of(app, "live"))

    def to(self, app: App, release: Release, rows: Sequence[InstanceRow]) -> Route:
        """To these instances of a release."""
        return Route(app.name, self.endpoints(release, rows), release.number)

    def endpoints(self, release: Release, rows: Sequence[InstanceRow], weight: int = 1) -> tuple[Endpoint, ...]:
        """Of the web instances among `rows` that are ready, in their order."""
        port = release.port or self._config.run.port
        web = sorted((row for row in rows if row.process_type == "web"), key=lambda row: row.number)
        return tuple(Endpoint(row.address, port, weight) for row in self._readiness.serving(web))
