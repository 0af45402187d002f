"""One-off commands: `run APP CMD` in the live image with the live config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paasd import events
from paasd.config import Config
from paasd.database import Database
from paasd.drivers.base import Driver, OneOff
from paasd.errors import Conflict
from paasd.models import Actor, App, ProcessType
from paasd.release import Releases
from paasd.resources import Resources
from paasd.route.domains import Domains
from paasd.run.networks import Networks
from paasd.run.tasks import one_off_spec


class OneOffs:
    def __init__(
        self,
        database: Database,
        config: Config,
        releases: Releases,
        domains: Domains,
        driver: Driver,
        networks: Networks,
        resources: Resources,
    ) -> None:
        self._database = database
        self._config = config
        self._releases = releases
        self._domains = domains
        self._driver = driver
        self._networks = networks
        self._resources = resources

    async def start(self, actor: Actor, app: App, command: Sequence[str], terminal: tuple[int, int] | None) -> OneOff:
        """A word that names a process type of the Procfile runs its command, with further words appended.
        Raises Conflict before the first deployment."""
        release = await self._releases.current(app)
        if release is None:
            raise Conflict(f"{app.name} has not been deployed yet", hint="Push it first: git push paasd main")
        project = await self._networks.ensure(app)
        url = await self._domains.url(app)
        limits = (await self._resources.of(app)).limits("run")
        entry = next((p.command for p in release.process_types if p.name == command[0] and p.command), None)
        spec = one_off_spec(app, project, release, ProcessType("run", entry), self._config, url, limits)
        arguments = tuple(command[1:])
        # "$@" hands the further words over as they are, whatever they hold.
        words = ("/bin/sh", "-c", f'{entry} "$@"', command[0], *arguments) if entry else tuple(command)
        async with self._database.transaction() as tx:
            await events.record(
                tx, "app.run", organization_id=app.organization_id, actor=actor.name, app=app.name, command=command[0]
            )
        return await self._driver.one_off(replace(spec, command=words), tty=terminal, stdin=True)
