"""Tables `builds` and `build_requests`, and the directory of build logs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from paasd import events
from paasd.build.buildkit import BuildResult
from paasd.database import Database, Row, Transaction, new_id, now
from paasd.errors import NotFound
from paasd.models import App, Push, Status
from paasd.numbered import Table, by_number, delete_in_pieces, next_number, page
from paasd.quota_gate import Asking, Gate, unlimited

_log = logging.getLogger(__name__)

_COUNTED = 86400.0

_TRUNCATED = b"\n !     The log is cut here; raise build.log_limit in paasd.toml to keep more.\n"


@dataclass(frozen=True)
class BuildRecord:
    """What a build decided and did."""

    buildpack: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase."""
    inputs: str = ""
    """Hash of all that went into the image."""
    image: str = ""
    image_size: int = 0
    """Bytes."""
    steps: int = 0
    cached_steps: int = 0

    def of(self, image: str, size: int, result: BuildResult | None = None) -> BuildRecord:
        """With the image it ended with; `result` is None when an earlier build had made it."""
        steps, cached = (result.steps, result.cached_steps) if result else (0, 0)
        return replace(self, image=image, image_size=size, steps=steps, cached_steps=cached)


@dataclass(frozen=True)
class BuildRow:
    """One attempt, as listed."""

    id: str
    app_id: str
    number: int
    revision: str
    branch: str
    pushed_by: str
    status: Status
    reason: str
    image: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    record: BuildRecord


class Builds:
    def __init__(self, database: Database, logs: Path, log_limit: int, gate: Gate = unlimited) -> None:
        self._database = database
        self._logs = logs
        self._log_limit = log_limit
        self._gate = gate

    async def request(self, app: App, push: Push) -> BuildRow:
        """Record an accepted push as a queued build. Raises QuotaExceeded."""
        asking = Asking(app.organization_id, app.project, push.user, app.name, writes=True)
        async with self._database.transaction() as tx, self._gate(tx, asking):
            number = await next_number(tx, Table.BUILDS, app.id)
            build_id = new_id()
            await tx.execute(
                "INSERT INTO builds (id, organization_id, app_id, number, revision, branch, pushed_by, status,"
                " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                build_id,
                app.organization_id,
                app.id,
                number,
                push.revision,
                push.branch,
                push.user,
                Status.QUEUED,
                now(),
            )
            await _count(tx, app)
            await events.record(
                tx,
                "build.requested",
                organization_id=app.organization_id,
                actor=push.user,
                app=app.name,
                build=number,
                revision=push.revision,
            )
        return await self.by_number(app, number)

    async def started(self, app: App, build: BuildRow, image: str) -> None:
        """`image` is what it makes: named from here on, so that no clean-up takes it from under the build."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE builds SET status = ?, image = ?, started_at = ? WHERE id = ?",
                Status.RUNNING,
                image,
                now(),
                build.id,
            )
            await events.record(
                tx,
                "build.started",
                organization_id=app.organization_id,
                actor=build.pushed_by,
                app=app.name,
                build=build.number,
            )

    async def record(self, build: BuildRow, record: BuildRecord) -> None:
        """Write down what was decided and done; `image` may be that of an earlier build of the same inputs."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE builds SET buildpack = ?, versions = ?, reasons = ?, phases = ?, inputs = ?, image = ?,"
                " image_size = ?, steps = ?, cached_steps = ? WHERE id = ?",
                record.buildpack,
                json.dumps(dict(record.versions)),
                json.dumps(record.reasons),
                json.dumps(dict(record.phases)),
                record.inputs,
                record.image,
                record.image_size,
                record.steps,
                record.cached_steps,
                build.id,
            )

    async def same_inputs(self, app: App, inputs: str) -> BuildRow | None:
        """The newest good build of an app that was made from the same."""
        row = await self._database.fetch_one(
            "SELECT * FROM builds WHERE app_id = ? AND inputs = ? AND status = 'succeeded'"
            " ORDER BY number DESC LIMIT 1",
            app.id,
            inputs,
        )
        return _row(row) if row else None

    async def forget_inputs(self, app: App) -> None:
        """No build of the app stands in for a coming one."""
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE builds SET inputs = '' WHERE app_id = ?", app.id)

    async def revision(self, build_id: str) -> str | None:
        row = await self._database.fetch_one("SELECT revision FROM builds WHERE id = ?", build_id)
        return str(row["revision"]) if row else None

    async def finished(self, app: App, build: BuildRow, status: Status, *, reason: str = "") -> None:
        """Set a final status once; a build that has one keeps it. Only one that succeeded keeps its image's name."""
        async with self._database.transaction() as tx:
            changed = await tx.execute(
                "UPDATE builds SET status = ?, reason = ?, finished_at = ?, image = iif(? = 'succeeded', image, '')"
                " WHERE id = ? AND status IN ('queued', 'running')",
                status,
                reason,
                now(),
                status,
                build.id,
            )
            if changed:
                await _record_completed(tx, app.organization_id, app.name, build, status, reason)

    async def of(self, app: App, *, before: int = 0, limit: int = 50) -> list[BuildRow]:
        """Newest first, numbers under `before` when given."""
        rows = await page(self._database, Table.BUILDS, app, before, limit)
        return [_row(row) for row in rows]

    async def by_number(self, app: App, number: int) -> BuildRow:
        row = await by_number(self._database, Table.BUILDS, app, number)
        if row is None:
            raise NotFound(f"{app.name} has no build {number}", hint=f"List them with: builds {app.name}")
        return _row(row)

    async def abandon_unfinished(self, reason: str) -> int:
        """At start: whatever was under way when the daemon died has failed, and has made no image."""
        async with self._database.transaction() as tx:
            abandoned = await tx.fetch(
                "UPDATE builds SET status = 'failed', reason = ?, finished_at = ?, image = ''"
                " WHERE status IN ('queued', 'running') RETURNING *, (SELECT name FROM apps WHERE id = app_id) AS app",
                reason,
                now(),
            )
            for row in abandoned:
                await _record_completed(tx, row["organization_id"], row["app"], _row(row), Status.FAILED, reason)
        return len(abandoned)

    async def unfinished(self, app: App) -> list[int]:
        """Numbers of the builds that are called queued or running."""
        rows = await self._database.fetch(
            "SELECT number FROM builds WHERE app_id = ? AND status IN ('queued', 'running')", app.id
        )
        return [row["number"] for row in rows]

    async def prune(self, app: App, keep: int) -> None:
        """Forget the oldest builds and their logs, never the newest: its number is where the next one comes from.
        Releases keep the images."""
        old = [b.id for b in await self.of(app, limit=10_000) if b.status.final][max(1, keep) :]
        await delete_in_pieces(self._database, Table.BUILDS, old)
        await self._remove_logs(old)

    async def stray_logs(self) -> list[str]:
        """Names of logs whose builds are gone."""
        names = await asyncio.to_thread(lambda: [path.name for path in self._logs.glob("*.log")])
        # Asked for after the files: a row is there before its log.
        known = {row["id"] for row in await self._database.fetch("SELECT id FROM builds")}
        return sorted(name for name in names if name.removesuffix(".log") not in known)

    async def remove_stray_logs(self) -> None:
        await self._remove_logs([name.removesuffix(".log") for name in await self.stray_logs()])

    async def _remove_logs(self, build_ids: Sequence[str]) -> None:
        def remove() -> None:
            for build_id in build_ids:
                (self._logs / f"{build_id}.log").unlink(missing_ok=True)

        await asyncio.to_thread(remove)

    def open_log(self, build: BuildRow) -> BuildLog:
        return BuildLog(self._logs / f"{build.id}.log", self._log_limit)

    async def read_log(self, app: App, build: BuildRow, *, follow: bool = False) -> AsyncIterator[bytes]:
        """The log in pieces; with `follow` until the build has a final status."""
        path = self._logs / f"{build.id}.log"
        position = 0
        while True:
            final = (await self.by_number(app, build.number)).status.final
            while piece := await asyncio.to_thread(_read_at, path, position):
                position += len(piece)
                yield piece
            if final or not follow:
                return
            await asyncio.sleep(0.2)


class BuildLog:
    """Appends lines to one build's log, up to a limit. Lines wait in memory until a thread has written those before."""

    def __init__(self, path: Path, limit: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._left = limit
        self._pending: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "ab", buffering=0)

    def write(self, line: str) -> None:
        if self._left <= 0 or self._file.closed:
            return
        data = (line + "\n").encode("utf-8", errors="backslashreplace")
        self._left -= len(data)
        self._pending.append(data if self._left > 0 else _TRUNCATED)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_pending())

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._file.close)

    async def _write_pending(self) -> None:
        while self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            try:
                await asyncio.to_thread(self._file.write, data)
            except OSError as error:
                _log.warning("a build log cannot be written: %s", error)
                self._left = 0


async def _count(tx: Transaction, app: App) -> None:
    """For quotas by the hour and the day: rows here outlive the app's. A preview's count for its app's project."""
    at = now()
    await tx.execute("DELETE FROM build_requests WHERE at < ?", at - _COUNTED)
    await tx.execute(
        "INSERT INTO build_requests SELECT ?, coalesce((SELECT projects.name FROM previews"
        " JOIN apps ON apps.id = previews.parent_id JOIN projects ON projects.id = apps.project_id"
        " WHERE previews.app_id = ?), ?), ?",
        app.organization_id,
        app.id,
        app.project,
        at,
    )


async def _record_completed(
    tx: Transaction, organization_id: str, app: str, build: BuildRow, status: Status, reason: str
) -> None:
    await events.record(
        tx,
        "build.completed",
        organization_id=organization_id,
        actor=build.pushed_by,
        app=app,
        build=build.number,
        status=status,
        reason=reason,
    )


def _read_at(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(64 * 1024)
    except FileNotFoundError:
        return b""


def _row(row: Row) -> BuildRow:
    values = {name: row[name] for name in BuildRow.__dataclass_fields__ if name != "record"}
    return BuildRow(**{**values, "status": Status(row["status"]), "record": _record(row)})


def _record(row: Row) -> BuildRecord:
    values = {name: row[name] for name in BuildRecord.__dataclass_fields__}
    decoded = {name: json.loads(row[name]) for name in ("versions", "reasons", "phases")}
    return BuildRecord(**{**values, **decoded})
