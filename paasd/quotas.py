"""Table `quotas`: what an organization and its projects may take of the box, and whether something more still may.

A quota refuses what asks for more; it never stops what runs, however far that is over it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from paasd import events
from paasd.app_settings import Family, Key, whole
from paasd.config import RunConfig
from paasd.database import Database, Transaction
from paasd.errors import InvalidInput, QuotaExceeded
from paasd.models import Actor, App
from paasd.names import chosen_name
from paasd.quota_gate import Asking
from paasd.quota_use import BoxLimits, Reader, Use, paying, use_of
from paasd.resources import KINDS, box_limits, bytes_of, shown_size

WARN = "warn"
_DEFAULT_WARN = 80
_SIZE, _CORES = KINDS["memory"].check, KINDS["cpu"].check
_BYTES = ("memory", "disk")
_TOLERANCE = 1e-6

FAMILY = Family(
    "quota",
    "quota:set",
    "quota",
    {
        "apps": Key(whole(0, 100_000, "a number of apps"), "Apps, previews included."),
        "memory": Key(_SIZE, "Memory of all instances that are meant to run, at their limits."),
        "cpu": Key(_CORES, "Cores of all instances that are meant to run, at their limits."),
        "disk": Key(_SIZE, "Volumes, snapshots, images and repositories, as measured every ten minutes."),
        "builds": Key(whole(0, 10_000, "a number of builds"), "Apps that are being built or wait for it at a time."),
        "builds-per-hour": Key(whole(0, 100_000, "a number of builds"), "Builds begun within an hour."),
        "builds-per-day": Key(whole(0, 1_000_000, "a number of builds"), "Builds begun within 24 hours."),
        WARN: Key(whole(1, 100, "a percentage"), "Percentage of a quota from which on it warns (80)."),
    },
)
LIMITS = tuple(key for key in FAMILY.keys if key != WARN)
_NOT_BY_PUSHES = ("apps", "builds")
_FREES = {
    "apps": "destroy one (apps:destroy)",
    "memory": "scale down (ps:scale) or lower a limit (resource:limit)",
    "cpu": "scale down (ps:scale) or lower a limit (resource:limit)",
    "disk": "remove snapshots or volumes (storage:list)",
    "builds": "wait for a build, or end one (deploys:cancel)",
    "builds-per-hour": "wait",
    "builds-per-day": "wait",
}


@dataclass(frozen=True)
class Scope:
    """The whole organization (`project` is empty) or one project, with its quotas in their own units."""

    project: str
    limits: Mapping[str, float]
    warn: float = _DEFAULT_WARN

    @property
    def title(self) -> str:
        return f"project {self.project}" if self.project else "the organization"

    @property
    def option(self) -> str:
        return f"--project {self.project}" if self.project else "--org"

    def near(self, use: Use) -> list[str]:
        """Keys whose use has come so close to the limit that it is told."""
        return [key for key, most in self.limits.items() if _share(use.get(key, 0.0), most) >= self.warn]


class Quotas:
    def __init__(self, database: Database, run: RunConfig) -> None:
        self._database = database
        self._box = BoxLimits(*box_limits(run))

    async def change(self, actor: Actor, project: str, changes: Mapping[str, str | None]) -> None:
        """All changes or none; None takes one away. `project` may not exist yet; '' is the organization. The caller has
        asked whether the actor may. Raises InvalidInput."""
        if project:
            chosen_name(project)
        wanted = {FAMILY.known(key): FAMILY.checked(key, value) if value else None for key, value in changes.items()}
        if not wanted:
            raise InvalidInput("name what to set", hint="For example: quota:set --project blog memory=2g apps=3")
        async with self._database.transaction() as tx:
            for key, value in wanted.items():
                await _put(tx, actor.organization_id, project, key, value)
            shown = {key: value or "none" for key, value in wanted.items()}
            await events.record(
                tx,
                "quota.set",
                organization_id=actor.organization_id,
                actor=actor.name,
                project=project or None,
                settings=shown,
            )

    async def report(self, organization_id: str, project: str | None = None) -> list[dict[str, Any]]:
        """The organization first, then the projects that use something or have quotas; or one of them."""
        scopes = await _scopes(self._database, organization_id)
        use = await use_of(self._database, organization_id, self._box)
        names = sorted({*scopes, *use, ""}) if project is None else [project]
        return [_shape(scopes.get(name, Scope(name, {})), use.get(name, {})) for name in names]

    async def warnings(self, app: App) -> list[str]:
        """A line for each quota that the app's project or organization has nearly used up, or is over, as far as a push
        changes them."""
        scopes = await _scopes(self._database, app.organization_id, app.project)
        if not scopes:
            return []
        use = await use_of(self._database, app.organization_id, self._box)
        return [
            f"{_told(scope, key, use.get(name, {}).get(key, 0.0))}"
            for name, scope in scopes.items()
            for key in scope.near(use.get(name, {}))
            if key not in _NOT_BY_PUSHES
        ]

    async def limited(self, key: str) -> bool:
        """Whether anybody on the box has a quota of this kind."""
        return await self._database.fetch_one("SELECT 1 FROM quotas WHERE key = ? LIMIT 1", key) is not None

    async def room_on_disk(self, organization_id: str, project: str) -> float | None:
        """Bytes that may still be written there, as far as was measured; None without a quota."""
        scopes = await _scopes(self._database, organization_id, project)
        use = await use_of(self._database, organization_id, self._box) if scopes else {}
        rooms = [s.limits["disk"] - use.get(n, {}).get("disk", 0.0) for n, s in scopes.items() if "disk" in s.limits]
        return max(0.0, min(rooms)) if rooms else None

    async def require_disk(self, organization_id: str, project: str) -> None:
        """Raises QuotaExceeded when what was measured has used it up."""
        scopes = await _scopes(self._database, organization_id, project)
        use = await use_of(self._database, organization_id, self._box) if scopes else {}
        for name, scope in scopes.items():
            _require(scope, use.get(name, {}), use.get(name, {}), Asking(organization_id, project, "", writes=True))

    @asynccontextmanager
    async def gate(self, tx: Transaction, asking: Asking) -> AsyncIterator[None]:
        """Compares the use before and after the block, inside its transaction, so that two that ask at the same time
        cannot both get the last of it. Raises QuotaExceeded."""
        if not await tx.fetch_one("SELECT 1 FROM quotas WHERE organization_id = ? LIMIT 1", asking.organization_id):
            yield
            return
        before = await use_of(tx, asking.organization_id, self._box)
        yield
        # Only now is it known of a new preview whose it is.
        scopes = await _scopes(tx, asking.organization_id, asking.project)
        after = await use_of(tx, asking.organization_id, self._box)
        for name, scope in scopes.items():
            _require(scope, before.get(name, {}), after.get(name, {}), asking)
        await _tell(tx, scopes, before, after, asking)

    @asynccontextmanager
    async def watched(self, tx: Transaction, organization_id: str) -> AsyncIterator[None]:
        """Tells what the block came near to or went over; refuses nothing, since it is so already."""
        scopes = await _scopes(tx, organization_id)
        before = await use_of(tx, organization_id, self._box) if scopes else {}
        yield
        after = await use_of(tx, organization_id, self._box) if scopes else {}
        await _tell(tx, scopes, before, after, Asking(organization_id, "", "paasd"))


async def _scopes(reader: Reader, organization_id: str, project: str | None = None) -> dict[str, Scope]:
    """Those with quotas, by project: all of the organization's, or what holds for one project."""
    if project is not None:
        project = (await paying(reader, organization_id)).get(project, project)
    rows = await reader.fetch(
        "SELECT project, key, value FROM quotas WHERE organization_id = ? AND (? IS NULL OR project IN ('', ?))"
        " ORDER BY project",
        organization_id,
        project,
        project,
    )
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["key"] in FAMILY.keys:
            values.setdefault(row["project"], {})[row["key"]] = _number(row["key"], row["value"])
    return {name: Scope(name, found, found.pop(WARN, _DEFAULT_WARN)) for name, found in values.items()}


def _require(scope: Scope, before: Use, after: Use, asking: Asking) -> None:
    for key, most in scope.limits.items():
        used, wanted = before.get(key, 0.0), after.get(key, 0.0)
        if wanted > used + _TOLERANCE and wanted > most + _TOLERANCE:
            raise _exceeded(scope, key, used, f"this asks for {_shown(key, wanted - used)} more", wanted)
        if key == "disk" and asking.writes and wanted >= most:
            raise _exceeded(scope, key, wanted, "this writes more", 2 * most)


async def _tell(
    tx: Transaction, scopes: Mapping[str, Scope], before: Mapping[str, Use], after: Mapping[str, Use], asking: Asking
) -> None:
    """Once, when a use comes near its limit from below, and when it reaches it."""
    for name, scope in scopes.items():
        for key, most in scope.limits.items():
            old, new = (_share(use.get(name, {}).get(key, 0.0), most) for use in (before, after))
            crossed = [kind for kind, at in (("warning", scope.warn), ("reached", 100.0)) if old < at <= new]
            if crossed:
                await events.record(
                    tx,
                    f"quota.{crossed[-1]}",
                    organization_id=asking.organization_id,
                    actor=asking.actor,
                    app=asking.app,
                    project=name or None,
                    quota=key,
                    used=_shown(key, after.get(name, {}).get(key, 0.0)),
                    limit=_shown(key, most),
                )


def _exceeded(scope: Scope, key: str, used: float, asks: str, wanted: float) -> QuotaExceeded:
    limit = scope.limits[key]
    return QuotaExceeded(
        f"the quota {key} of {scope.title} is {_shown(key, limit)}; {_shown(key, used)} are used, and {asks}",
        hint=f"Make room: {_FREES[key]}; or ask an administrator for: quota:set {scope.option}"
        f" {key}={_written(key, wanted)}. What is used: quota:report {scope.option}",
    )


def _told(scope: Scope, key: str, used: float) -> str:
    most = scope.limits[key]
    return (
        f"{scope.title} uses {_shown(key, used)} of its quota {key} of {_shown(key, most)} ({_share(used, most):.0f} %)"
    )


def _share(used: float, most: float) -> float:
    """Percent."""
    return 100 * used / most + _TOLERANCE if most else (100.0 if used else 0.0)


def _number(key: str, value: str) -> float:
    return float(bytes_of(value)) if key in _BYTES else float(value)


def _shown(key: str, value: float) -> str:
    return shown_size(round(value)) if key in _BYTES else f"{value:.4g}"


def _written(key: str, value: float) -> str:
    """As `quota:set` takes it, not less."""
    return f"{-(-round(value) // 1024**2)}m" if key in _BYTES else f"{value:.4g}"


def _shape(scope: Scope, use: Use) -> dict[str, Any]:
    return {
        "project": scope.project or None,
        "warn": scope.warn,
        "quotas": {
            key: {
                "used": use.get(key, 0.0),
                "limit": scope.limits.get(key),
                "near": key in scope.near(use),
            }
            for key in LIMITS
        },
    }


async def _put(tx: Transaction, organization_id: str, project: str, key: str, value: str | None) -> None:
    await tx.execute(
        "DELETE FROM quotas WHERE organization_id = ? AND project = ? AND key = ?", organization_id, project, key
    )
    if value is not None:
        await tx.execute("INSERT INTO quotas VALUES (?, ?, ?, ?)", organization_id, project, key, value)
