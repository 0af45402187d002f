"""Table `releases`: immutable `vN` of an app, image + config vars + process types."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from paasd import events
from paasd.database import Database, Row, new_id, now
from paasd.errors import NotFound
from paasd.models import App, Build, ProcessType, Release, Secret
from paasd.numbered import Table, by_number, delete_in_pieces, next_number, page
from paasd.secrets import Vault

_UNDEPLOYED = 3600.0
"""Seconds that a release without a deployment is kept: it may be on its way to one."""


class Releases:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def from_build(self, app: App, build: Build, config: Mapping[str, Secret], actor: str) -> Release:
        """The next release of an app, from what was just built."""
        release = Release(
            id=new_id(),
            app_id=app.id,
            number=0,
            build_id=build.id,
            image=build.image,
            user=build.user,
            config=config,
            process_types=build.process_types,
            checks=build.checks,
            description=f"Deploy {build.revision[:8]}",
            created_by=actor,
            created_at=now(),
            app_json=build.app_json,
            port=build.port,
        )
        return await self._insert(app, release)

    async def with_config(
        self, app: App, base: Release, config: Mapping[str, Secret], actor: str, description: str
    ) -> Release:
        """The image of `base` with other config vars."""
        return await self._copy(app, base, config, actor, description)

    async def from_old(self, app: App, old: Release, actor: str) -> Release:
        """A rollback: everything of `old` under a new number."""
        return await self._copy(app, old, old.config, actor, f"Rollback to {old.version}")

    async def adopted(
        self, app: App, other: Release, config: Mapping[str, Secret], actor: str, description: str
    ) -> Release:
        """What another app runs, as a release of `app`. Its build stays the other app's."""
        unbuilt = replace(other, build_id=None)
        return await self._copy(app, unbuilt, config, actor, description)

    async def get(self, app: App, release_id: str) -> Release:
        row = await self._database.fetch_one(
            "SELECT * FROM releases WHERE organization_id = ? AND app_id = ? AND id = ?",
            app.organization_id,
            app.id,
            release_id,
        )
        if row is None:
            raise NotFound(f"{app.name} has no such release")
        return self._release(app, row)

    async def current(self, app: App) -> Release | None:
        """The live release, None before the first deployment."""
        return await self.get(app, app.release_id) if app.release_id else None

    async def by_number(self, app: App, number: int) -> Release:
        row = await by_number(self._database, Table.RELEASES, app, number)
        if row is None:
            raise NotFound(f"{app.name} has no release v{number}", hint=f"List them with: releases {app.name}")
        return self._release(app, row)

    async def of_build(self, app: App, number: int) -> Release:
        """The newest release with a build's image. Raises NotFound."""
        row = await self._database.fetch_one(
            "SELECT releases.* FROM releases JOIN builds ON builds.id = releases.build_id"
            " WHERE releases.organization_id = ? AND releases.app_id = ? AND builds.number = ?"
            " ORDER BY releases.number DESC LIMIT 1",
            app.organization_id,
            app.id,
            number,
        )
        if row is None:
            raise NotFound(f"no release was made of build {number}", hint=f"List the builds with: builds {app.name}")
        return self._release(app, row)

    async def of(self, app: App, *, before: int = 0, limit: int = 50) -> list[Release]:
        """Newest first, numbers under `before` when given."""
        rows = await page(self._database, Table.RELEASES, app, before, limit)
        return [self._release(app, row) for row in rows]

    async def was_live(self, app: App) -> set[int]:
        """Numbers of the releases that were deployed successfully at some time."""
        rows = await self._database.fetch(
            "SELECT DISTINCT releases.number FROM releases JOIN deployments ON deployments.release_id = releases.id"
            " WHERE releases.app_id = ? AND deployments.status = 'succeeded'",
            app.id,
        )
        return {row["number"] for row in rows}

    async def before_current(self, app: App) -> Release:
        """What a plain `rollback` goes back to: the newest release under the live one that was live. NotFound."""
        current = await self.current(app)
        live = await self.was_live(app)
        older = [number for number in live if current and number < current.number]
        if not older:
            raise NotFound(f"{app.name} has no earlier release that was live", hint="Deploy with git push instead.")
        return await self.by_number(app, max(older))

    async def prune(self) -> int:
        """Forget releases that no deployment tells of any more: none that is live, runs, can be gone back to or is just
        about to be deployed, and never an app's newest, whose number is where the next one comes from. Returns how
        many went."""
        old = await self._database.fetch(
            "SELECT id FROM releases WHERE created_at < ?"
            " AND NOT EXISTS (SELECT 1 FROM deployments WHERE release_id = releases.id)"
            " AND NOT EXISTS (SELECT 1 FROM instances WHERE release_id = releases.id)"
            " AND NOT EXISTS (SELECT 1 FROM apps WHERE release_id = releases.id)"
            " AND number < (SELECT max(number) FROM releases AS other WHERE other.app_id = releases.app_id)",
            now() - _UNDEPLOYED,
        )
        return await delete_in_pieces(self._database, Table.RELEASES, (row["id"] for row in old))

    async def _copy(
        self, app: App, base: Release, config: Mapping[str, Secret], actor: str, description: str
    ) -> Release:
        copy = replace(
            base,
            id=new_id(),
            app_id=app.id,
            config=config,
            description=description,
            created_by=actor,
            created_at=now(),
        )
        return await self._insert(app, copy)

    async def _insert(self, app: App, release: Release) -> Release:
        """Write it down under the next number."""
        sealed = self._vault.seal_all(release.config, _place(app, release.id))
        async with self._database.transaction() as tx:
            number = await next_number(tx, Table.RELEASES, app.id)
            await tx.execute(
                "INSERT INTO releases (id, organization_id, app_id, number, build_id, image, run_as, config,"
                " process_types, checks, description, created_by, created_at, app_json, port)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                release.id,
                app.organization_id,
                app.id,
                number,
                release.build_id,
                release.image,
                release.user,
                sealed,
                json.dumps([[p.name, p.command] for p in release.process_types]),
                json.dumps(release.checks),
                release.description,
                release.created_by,
                release.created_at,
                json.dumps(release.app_json),
                release.port,
            )
            await events.record(
                tx,
                "release.created",
                organization_id=app.organization_id,
                actor=release.created_by,
                app=app.name,
                release=number,
                description=release.description,
            )
        return await self.by_number(app, number)

    def _release(self, app: App, row: Row) -> Release:
        return Release(
            id=row["id"],
            app_id=row["app_id"],
            number=row["number"],
            build_id=row["build_id"],
            image=row["image"],
            user=row["run_as"],
            config=self._vault.open_all(row["config"], _place(app, row["id"])),
            process_types=process_types_from(row["process_types"]),
            checks=json.loads(row["checks"]),
            description=row["description"],
            created_by=row["created_by"],
            created_at=row["created_at"],
            app_json=json.loads(row["app_json"]),
            port=row["port"],
        )


def differences(old: Release, new: Release) -> list[str]:
    """What `new` has otherwise than `old`, a line each. Config vars by name: their values are secrets."""
    found = [] if old.image == new.image else [f"image: {old.image} → {new.image}"]
    found += _compared("config var", old.config, new.config, lambda _: "")
    found += _compared("process", _commands(old), _commands(new), str)
    found += _compared("checks of", old.checks, new.checks, json.dumps)
    found += _compared("app.json", old.app_json, new.app_json, json.dumps)
    if old.port != new.port:
        found.append(f"port: {old.port or 'the usual one'} → {new.port or 'the usual one'}")
    return found


def _commands(release: Release) -> dict[str, str]:
    return {p.name: p.command or "(the image's own)" for p in release.process_types}


def _compared(noun: str, old: Mapping[str, Any], new: Mapping[str, Any], told: Callable[[Any], str]) -> list[str]:
    """`told` says a value; nothing is said of it where it gives no text."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = (told(side[name]) if name in side else "" for side in (old, new))
        if name not in new:
            found.append(f"{noun} {name}: removed")
        elif name not in old:
            found.append(f"{noun} {name}: added" + (f": {after}" if after else ""))
        elif old[name] != new[name]:
            found.append(f"{noun} {name}: changed" + (f": {before} → {after}" if after else ""))
    return found


def process_types_from(text: str) -> tuple[ProcessType, ...]:
    pairs: Sequence[Sequence[Any]] = json.loads(text)
    return tuple(ProcessType(name, command) for name, command in pairs)


def _place(app: App, release_id: str) -> str:
    return f"{app.organization_id}|{app.id}|release|{release_id}"
