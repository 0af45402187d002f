"""Table `certificate_troubles`: host names that got no certificate, why, and when they are tried again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from paasd import events
from paasd.database import Database, Row, now
from paasd.models import App
from paasd.route.acme.rules import Trouble, retry_after

AT_LEAST = 60.0
"""Seconds between attempts, whoever asks for them: authorities count failures, and shut out the whole box."""


class Troubles:
    def __init__(self, database: Database, clock: Callable[[], float] = now) -> None:
        self._database = database
        self._clock = clock

    async def of(self, app: App) -> dict[str, Trouble]:
        """By name."""
        rows = await self._database.fetch("SELECT * FROM certificate_troubles WHERE app_id = ?", app.id)
        return {row["name"]: Trouble(row["failures"], row["retry_at"], row["problem"]) for row in rows}

    async def add(self, app: App, problems: Mapping[str, str], asked: float | None) -> None:
        """One failure more for each name. `asked`: seconds that the authority asked to wait."""
        known = await self.of(app)
        async with self._database.transaction() as tx:
            for name, problem in problems.items():
                failures = known[name].failures + 1 if name in known else 1
                await tx.execute(
                    "INSERT INTO certificate_troubles (app_id, name, failures, retry_at, problem, at)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (app_id, name) DO UPDATE SET failures = excluded.failures,"
                    " retry_at = excluded.retry_at, problem = excluded.problem, at = excluded.at",
                    app.id,
                    name,
                    failures,
                    self._clock() + retry_after(failures, asked),
                    problem[:1000],
                    self._clock(),
                )
            await events.record(
                tx,
                "certificate.failed",
                organization_id=app.organization_id,
                actor="paasd",
                app=app.name,
                names=" ".join(problems),
                problem="; ".join(dict.fromkeys(problems.values()))[:1000],
            )

    async def release(self, app: App) -> dict[str, Trouble]:
        """Forget what may be tried at once because somebody asks. Returns the rest: what failed a moment ago, and what
        the authority asked to wait for."""
        at = self._clock()
        rows = await self._database.fetch("SELECT * FROM certificate_troubles WHERE app_id = ?", app.id)
        kept = {row["name"] for row in rows if 0 <= at - row["at"] < AT_LEAST or _asked_to_wait(row)}
        await self.clear(app, {row["name"] for row in rows} - kept)
        return {name: trouble for name, trouble in (await self.of(app)).items() if at < trouble.retry_at}

    async def clear(self, app: App, names: Collection[str] | None = None) -> None:
        """Forget the troubles of these names, or of all."""
        async with self._database.transaction() as tx:
            for name in names if names is not None else await self.of(app):
                await tx.execute("DELETE FROM certificate_troubles WHERE app_id = ? AND name = ?", app.id, name)


def _asked_to_wait(row: Row) -> bool:
    return bool(row["retry_at"] - row["at"] > retry_after(row["failures"]) + 1)
