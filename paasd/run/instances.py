"""Table `instances`: which instances should exist, at which address. What really runs is the driver's to say."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from paasd.apps import RELEASE_TASK as RELEASE_TASK
from paasd.apps import wanted_counts
from paasd.clock import steady
from paasd.config import Config, RunConfig
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import Conflict, NotFound
from paasd.models import App, InstanceSpec, Limits, Project, Release, Secret
from paasd.names import shown


@dataclass(frozen=True)
class InstanceRow:
    """One desired instance. States: `new` (not yet switched to), `live`, `retiring` (until `retire_at`)."""

    name: str
    app_id: str
    project_id: str
    release_id: str
    deployment_id: str | None
    process_type: str
    number: int
    address: str
    state: str
    retire_at: float | None
    streams_until: float | None = None
    """Until when it keeps WebSockets and event streams, once it retires."""
    stop_timeout: int | None = None
    """Seconds between SIGTERM and SIGKILL, once it retires."""
    asleep_since: float | None = None
    """Its container is kept stopped since then, because nobody asks for its app."""

    @property
    def asleep(self) -> bool:
        """Live, but not to be running."""
        return self.asleep_since is not None


@dataclass(frozen=True)
class Farewell:
    """How an instance retires: times of the steady clock until which it keeps what it has, then the seconds
    between SIGTERM and SIGKILL (None: the box's)."""

    retire_at: float
    streams_until: float
    stop_timeout: int | None = None

    @classmethod
    def now(cls) -> Farewell:
        return cls(steady(), steady())


class Instances:
    def __init__(self, database: Database, label: str) -> None:
        self._database = database
        self._label = label
        self._cursor: dict[str, int] = {}
        """Where to look for the next address, by project."""

    async def plan(
        self,
        app: App,
        project: Project,
        release: Release,
        deployment_id: str,
        scale: Mapping[str, int],
        keep: Collection[InstanceRow] = (),
    ) -> list[InstanceRow]:
        """Write down the new instances of a deployment, those in place of which others are kept left out, with
        addresses of their own, before any is started. Raises Conflict when the project's network is full."""
        kept = {(row.process_type, row.number) for row in keep}
        wanted = [instance for instance in wanted_instances(release, scale) if instance not in kept]
        async with self._database.transaction() as tx:
            rows = []
            for process_type, number in wanted:
                row = InstanceRow(
                    name=f"{self._label}-{app.name}-{release.version}-{process_type}-{number}-{new_id()[:6]}",
                    app_id=app.id,
                    project_id=project.id,
                    release_id=release.id,
                    deployment_id=deployment_id,
                    process_type=process_type,
                    number=number,
                    address=await self._free_address(tx, project),
                    state="new",
                    retire_at=None,
                )
                await _insert(tx, app, row)
                rows.append(row)
        return rows

    async def of(self, app: App, state: str | None = None) -> list[InstanceRow]:
        rows = await self._database.fetch(
            "SELECT * FROM instances WHERE organization_id = ? AND app_id = ? AND (? IS NULL OR state = ?)"
            " ORDER BY process_type, number, created_at",
            app.organization_id,
            app.id,
            state,
            state,
        )
        return [_row(row) for row in rows]

    async def find(self, app: App, title: str) -> InstanceRow:
        """A live instance: `web.1`, or `web` for its first. Raises NotFound."""
        live = await self.of(app, "live")
        found = [row for row in live if title in (row.process_type, f"{row.process_type}.{row.number}")]
        if not found:
            names = ", ".join(f"{row.process_type}.{row.number}" for row in live) or "nothing"
            raise NotFound(
                f"{app.name} has no live instance {shown(title)}; there is {names}",
                hint=f"Look at: ps:report {app.name}",
            )
        return found[0]

    async def all(self) -> list[InstanceRow]:
        """Every desired instance on the box, for reconciling."""
        return [_row(row) for row in await self._database.fetch("SELECT * FROM instances")]

    async def forget(self, names: Sequence[str]) -> None:
        async with self._database.transaction() as tx:
            for name in names:
                await tx.execute("DELETE FROM instances WHERE name = ?", name)

    def forget_project(self, project_id: str) -> None:
        """The project is gone."""
        self._cursor.pop(project_id, None)

    async def retire_abandoned(self) -> None:
        """New instances of deployments that have ended: whoever should have removed them could not."""
        rows = await self._database.fetch(
            "SELECT name FROM instances WHERE state = 'new' AND (deployment_id IS NULL OR deployment_id IN"
            " (SELECT id FROM deployments WHERE status != 'running'))"
        )
        if rows:
            await self.retire([row["name"] for row in rows])

    async def retire(self, names: Sequence[str]) -> None:
        """At once."""
        async with self._database.transaction() as tx:
            for name in names:
                await mark_retiring(tx, name, Farewell.now())

    async def _free_address(self, tx: Transaction, project: Project) -> str:
        """Goes round the subnet, so that an address just given up is the last one to be used again."""
        assert project.subnet is not None
        taken = {
            row["address"] for row in await tx.fetch("SELECT address FROM instances WHERE project_id = ?", project.id)
        }
        pool = static_addresses(project.subnet)
        start = self._cursor.get(project.id, int(now()) % len(pool))
        for position in itertools.chain(range(start, len(pool)), range(start)):
            if pool[position] not in taken:
                self._cursor[project.id] = (position + 1) % len(pool)
                return pool[position]
        raise Conflict(
            f"the network of project {project.name} is full ({len(pool)} addresses)",
            hint="Scale an app of the project down, or move one to a project of its own.",
        )


def static_addresses(subnet: str) -> list[str]:
    """Addresses paasd hands out itself: a project's subnet without network and gateway address and without the last
    quarter, which is the engine's, for one-off commands."""
    network = ipaddress.IPv4Network(subnet)
    return [str(network[i]) for i in range(2, network.num_addresses * 3 // 4)]


def wanted_instances(release: Release, scale: Mapping[str, int]) -> list[tuple[str, int]]:
    """`(process type, number)` of every instance, numbers from 1."""
    names = [process.name for process in release.process_types]
    counts = wanted_counts(names, scale, release.app_json.get("formation", {}))
    return [(name, number) for name, count in counts.items() for number in range(1, count + 1)]


async def mark_live(tx: Transaction, name: str) -> None:
    await tx.execute("UPDATE instances SET state = 'live' WHERE name = ?", name)


async def mark_retiring(tx: Transaction, name: str, farewell: Farewell) -> None:
    await tx.execute(
        "UPDATE instances SET state = 'retiring', retire_at = ?, streams_until = ?, stop_timeout = ? WHERE name = ?",
        farewell.retire_at,
        farewell.streams_until,
        farewell.stop_timeout,
        name,
    )


async def mark_asleep(tx: Transaction, name: str, since: float | None) -> None:
    """None: it is awake again."""
    await tx.execute("UPDATE instances SET asleep_since = ? WHERE name = ? AND state = 'live'", since, name)


def spec_of(
    app: App,
    project: Project,
    release: Release,
    row: InstanceRow,
    config: Config,
    url: str,
    stop_timeout: int,
    limits: Limits,
) -> InstanceSpec:
    """What the driver needs to run `row`."""
    process = next(p for p in release.process_types if p.name == row.process_type)
    return InstanceSpec(
        name=row.name,
        app_id=app.id,
        app=app.name,
        release=release.number,
        process_type=row.process_type,
        index=row.number,
        image=release.image,
        command=command_line(process.command),
        env=environment(app, release, f"{row.process_type}.{row.number}", config.run, url),
        network=network_name(config.label, project),
        address=row.address,
        limits=limits,
        user=release.user,
        stop_timeout=stop_timeout,
    )


def command_line(command: str | None) -> tuple[str, ...] | None:
    """Procfile commands are shell text by definition; the shell is the one inside the instance."""
    return None if command is None else ("/bin/sh", "-c", command)


def environment(app: App, release: Release, dyno: str, config: RunConfig, url: str) -> dict[str, Secret]:
    """Config vars of the release plus what paasd tells every instance. `PORT` is for web alone, but harmless beside."""
    own = {
        "PORT": str(release.port or config.port),
        "DYNO": dyno,
        "PAASD_APP": app.name,
        "PAASD_PROJECT": app.project,
        "PAASD_ENVIRONMENT": app.environment,
        "PAASD_RELEASE": release.version,
        "PAASD_URL": url,
    }
    return {**release.config, **{key: Secret(value) for key, value in own.items()}}


def network_name(label: str, project: Project) -> str:
    return f"{label}-{project.name}-{project.id[:6]}"


async def _insert(tx: Transaction, app: App, row: InstanceRow) -> None:
    await tx.execute(
        "INSERT INTO instances (name, organization_id, app_id, project_id, release_id, deployment_id, process_type,"
        " number, address, state, retire_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row.name,
        app.organization_id,
        row.app_id,
        row.project_id,
        row.release_id,
        row.deployment_id,
        row.process_type,
        row.number,
        row.address,
        row.state,
        row.retire_at,
        now(),
    )


def _row(row: Row) -> InstanceRow:
    return InstanceRow(**{name: row[name] for name in InstanceRow.__dataclass_fields__})
