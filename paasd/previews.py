"""Table `previews`: an app for each branch that was pushed to an app beside its deploy branch, for a while."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from paasd import events
from paasd.app_settings import AppSettings, Family, Key, copy_settings, duration, one_of, whole, words
from paasd.app_sites import AppSites
from paasd.apps import Apps
from paasd.config_vars import ConfigVars
from paasd.database import Database, Row, Transaction, now
from paasd.errors import Conflict, NotFound
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler
from paasd.lifecycle import Lifecycle
from paasd.models import Actor, App
from paasd.names import MAX_PREVIEW_PREFIX, config_key, shown
from paasd.progress import Progress
from paasd.quota_gate import Asking, Gate, unlimited

_log = logging.getLogger(__name__)

SETTINGS = Family(
    "previews",
    "previews:set",
    "preview setting",
    {
        "enabled": Key(one_of("true"), "Whether other branches that are pushed become previews."),
        "ttl": Key(duration(60, 365 * 86400), "How long a preview lives after the last push to it."),
        "limit": Key(whole(1, 100, "a number of previews"), "How many the app may have at a time."),
        "inherit": Key(words(config_key, "names of config vars"), "Config vars that previews take over from the app."),
    },
)
_DEFAULTS = {"ttl": str(7 * 86400), "limit": "5", "inherit": ""}
_COPIED = ("build", "resource", "sleep", "tls", "edge")
"""Families of settings that a preview shares with its app."""
_OWN = ("automatic", "maintenance")
"""Not shared: a certificate from an authority for each branch would use up what the domain gets in a week. And who
works on an app looks at its previews."""
_EXPIRE = JobType("preview.expire", Queue.CLEANUP, timeout=300)


@dataclass(frozen=True)
class Preview:
    app: App
    branch: str
    expires_at: float


class Previews:
    def __init__(
        self,
        database: Database,
        apps: Apps,
        config_vars: ConfigVars,
        lifecycle: Lifecycle,
        sites: AppSites,
        jobs: Jobs,
        gate: Gate = unlimited,
    ) -> None:
        self._database = database
        self._apps = apps
        self._config_vars = config_vars
        self._lifecycle = lifecycle
        self._sites = sites
        self._jobs = jobs
        self._gate = gate
        self.settings = AppSettings(database, SETTINGS)

    def handlers(self) -> Sequence[Handler]:
        return [Handler(_EXPIRE, self._expire)]

    async def report(self, app: App) -> dict[str, str]:
        """Every setting, the defaults included."""
        return {"enabled": "", **_DEFAULTS, **await self.settings.get(app)}

    async def of(self, app: App) -> list[Preview]:
        """Of an app, by branch."""
        rows = await self._database.fetch(
            "SELECT * FROM previews WHERE organization_id = ? AND parent_id = ? ORDER BY branch",
            app.organization_id,
            app.id,
        )
        apps = {found.id: found for found in await self._apps.of(app.organization_id)}
        return [_preview(row, apps[row["app_id"]]) for row in rows if row["app_id"] in apps]

    async def ensure(self, actor: Actor, app: App, branch: str, progress: Progress) -> App | None:
        """The preview of a branch that is being pushed, made or given more time; None when the app has none. Raises
        Conflict when there are too many."""
        settings = await self.report(app)
        if not settings["enabled"]:
            return None
        present = await self.of(app)
        preview = next((found.app for found in present if found.branch == branch), None)
        if preview is None:
            if len(present) >= int(settings["limit"]):
                names = ", ".join(shown(found.branch) for found in present)
                raise Conflict(
                    f"{app.name} has {len(present)} previews already: {names}",
                    hint=f"Destroy one: previews:destroy {app.name} <branch>, or allow more: previews:enable"
                    f" {app.name} --limit {len(present) + 1}",
                )
            preview = await self._create(actor, app, branch)
        await self._prolong(preview, float(settings["ttl"]))
        await self._inherit(actor, app, preview)
        days = float(settings["ttl"]) / 86400
        progress.step(f"Preview {preview.name} of {app.name}, for {days:.1f} days after this push")
        return preview

    async def destroy(self, actor: Actor, app: App, branch: str) -> App:
        """Raises NotFound."""
        preview = await self._of_branch(app, branch)
        if preview is None:
            raise NotFound(f"{app.name} has no preview of {shown(branch)}", hint=f"List them: previews {app.name}")
        await self._lifecycle.destroy(actor, preview.app)
        return preview.app

    async def branch_deleted(self, actor: Actor, app: App, branch: str, progress: Progress) -> None:
        """Its preview goes with a branch, if it has one."""
        if preview := await self._of_branch(app, branch):
            progress.step(f"Destroying the preview {preview.app.name}")
            await self._lifecycle.destroy(actor, preview.app)

    async def destroy_all(self, actor: Actor, app: App) -> None:
        """Before the app itself goes."""
        for preview in await self.of(app):
            await self._lifecycle.destroy(actor, preview.app)

    async def _of_branch(self, app: App, branch: str) -> Preview | None:
        return next((found for found in await self.of(app) if found.branch == branch), None)

    async def _create(self, actor: Actor, app: App, branch: str) -> App:
        name = preview_name(app.name, branch)
        if await self._apps.is_taken(name):
            name = preview_name(app.name, branch, distinct=True)

        async def also(tx: Transaction, app_id: str) -> None:
            await tx.execute(
                "INSERT INTO previews (app_id, organization_id, parent_id, branch, expires_at) VALUES (?, ?, ?, ?, ?)",
                app_id,
                app.organization_id,
                app.id,
                branch,
                now(),
            )
            await events.record(
                tx,
                "preview.created",
                organization_id=app.organization_id,
                actor=actor.name,
                app=name,
                of=app.name,
                branch=branch,
            )

        return await self._lifecycle.create(actor, name, environment="preview", also=also)

    async def _prolong(self, preview: App, ttl: float) -> None:
        async with self._database.transaction() as tx:
            await tx.execute("UPDATE previews SET expires_at = ? WHERE app_id = ?", now() + ttl, preview.id)
            await self._wait(tx, preview, ttl)

    async def _wait(self, tx: Transaction, preview: App, seconds: float) -> None:
        """The job is not the preview's own: it would be ended with it, in the middle."""
        await self._jobs.add(
            tx,
            _EXPIRE,
            {"app_id": preview.id},
            organization_id=preview.organization_id,
            key=preview.id,
            after=seconds,
            moves=True,
        )

    async def inherited(self, app: App) -> list[str]:
        """Names of the config vars that previews take over: those listed; without a list all, but none of an app in
        production."""
        listed, config = (await self.report(app))["inherit"].split(), await self._config_vars.get(app)
        wanted = listed or ([] if app.environment == "production" else list(config))
        return [name for name in wanted if name in config]

    async def _inherit(self, actor: Actor, app: App, preview: App) -> None:
        """Settings as they are, effective before anything goes live; config vars as far as the preview has none of its
        own."""
        asking = Asking(preview.organization_id, preview.project, actor.name, preview.name)
        async with self._database.transaction() as tx, self._gate(tx, asking):
            await copy_settings(tx, app, preview, _COPIED, _OWN)
        await self._sites.set(preview)
        config, present = await self._config_vars.get(app), await self._config_vars.get(preview)
        missing = {name: config[name] for name in await self.inherited(app) if name not in present}
        if missing:
            await self._config_vars.change(actor, preview, dict(missing))

    async def _expire(self, job: Job) -> None:
        row = await self._database.fetch_one("SELECT * FROM previews WHERE app_id = ?", job.payload["app_id"])
        apps = {app.id: app for app in await self._apps.all()}
        if row is None or row["app_id"] not in apps:
            return
        preview = apps[row["app_id"]]
        if (left := row["expires_at"] - now()) > 0:
            async with self._database.transaction() as tx:
                await self._wait(tx, preview, left)
            return
        _log.info("the preview %s has expired", preview.name)
        await self._lifecycle.destroy(Actor(preview.organization_id, None, "paasd", "owner"), preview)


def preview_name(app: str, branch: str, *, distinct: bool = False) -> str:
    """`feature-x--blog`. Branches that would have the same name are told apart by a hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"b{slug}"
    if distinct or len(slug) > MAX_PREVIEW_PREFIX:
        mark = hashlib.sha256(branch.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        slug = f"{slug[: MAX_PREVIEW_PREFIX - 7].rstrip('-')}-{mark}"
    return f"{slug}--{app}"


def _preview(row: Row, app: App) -> Preview:
    return Preview(app, row["branch"], row["expires_at"])
