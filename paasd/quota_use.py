"""What the projects of an organization use, in the terms of quotas. Reads tables of others, writes none.

Memory and CPU are what is meant to run, at its limits: of every app the live release's process types, times their
counts, times what one instance may have. While a deployment is under way the app counts as the larger of the two
releases, not as both.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from paasd.apps import wanted_counts
from paasd.database import Row, now
from paasd.models import Limits
from paasd.resources import AppResources

HOUR, DAY = 3600.0, 86400.0
Use = dict[str, float]
"""By the key of a quota."""

_APPS = (
    "SELECT apps.id, apps.scale, apps.stopped, projects.name AS project, releases.process_types, releases.app_json"
    " FROM apps JOIN projects ON projects.id = apps.project_id LEFT JOIN releases ON releases.id = apps.release_id"
    " WHERE apps.organization_id = ?"
)
_STARTING = (
    "SELECT deployments.app_id, releases.process_types, releases.app_json FROM deployments"
    " JOIN releases ON releases.id = deployments.release_id"
    " WHERE deployments.organization_id = ? AND deployments.status = 'running' AND NOT deployments.stopped"
)


_PREVIEWS = (
    "SELECT own.name AS project, paying.name AS pays FROM previews JOIN apps ON apps.id = previews.app_id"
    " JOIN projects AS own ON own.id = apps.project_id JOIN apps AS parent ON parent.id = previews.parent_id"
    " JOIN projects AS paying ON paying.id = parent.project_id WHERE previews.organization_id = ?"
)


class Reader(Protocol):
    """A transaction, or the database as it was committed."""

    async def fetch(self, sql: str, *values: Any) -> list[Row]: ...


@dataclass(frozen=True)
class BoxLimits:
    """What an instance gets when nothing was set, and what it gets at most."""

    default: Limits
    most: Limits


async def use_of(reader: Reader, organization_id: str, box: BoxLimits) -> dict[str, Use]:
    """By project; the whole organization is under ''."""
    apps, pays = await reader.fetch(_APPS, organization_id), await paying(reader, organization_id)
    found: dict[str, Use] = defaultdict(lambda: defaultdict(float))
    starting = await _by_app(reader, _STARTING, organization_id)
    settings = await _settings(reader, organization_id)
    building = await reader.fetch(
        "SELECT DISTINCT app_id FROM builds WHERE organization_id = ? AND status IN ('queued', 'running')",
        organization_id,
    )
    busy = {row["app_id"] for row in building}
    for app in apps:
        resources = AppResources(settings.get(app["id"], {}), box.default, box.most)
        memory, cpu = _meant_to_run(app, starting.get(app["id"], ()), resources)
        use = {"apps": 1.0, "memory": memory, "cpu": cpu, "builds": float(app["id"] in busy)}
        _add(found[pays.get(app["project"], app["project"])], use)
    for project, use in (await _counted(reader, organization_id)).items():
        _add(found[pays.get(project, project)], use)
    total: Use = defaultdict(float)
    for use in found.values():
        _add(total, use)
    return {**found, "": total}


async def paying(reader: Reader, organization_id: str) -> dict[str, str]:
    """Each preview is in a project of its own, and counts in that of the app it is of."""
    return {row["project"]: row["pays"] for row in await reader.fetch(_PREVIEWS, organization_id)}


def _meant_to_run(app: Row, starting: Iterable[Row], resources: AppResources) -> tuple[float, float]:
    """Bytes and cores."""
    live = [app] if app["process_types"] is not None and not app["stopped"] else []
    scale = json.loads(app["scale"])
    sums = [_sum(row, scale, resources) for row in (*live, *starting)]
    return max((memory for memory, _ in sums), default=0.0), max((cpu for _, cpu in sums), default=0.0)


def _sum(release: Row, scale: Mapping[str, int], resources: AppResources) -> tuple[float, float]:
    names = [name for name, _ in json.loads(release["process_types"])]
    counts = wanted_counts(names, scale, json.loads(release["app_json"]).get("formation", {}))
    limits = {name: resources.limits(name) for name in counts}
    memory = sum(count * limits[name].memory for name, count in counts.items())
    return float(memory), sum(count * limits[name].cpus for name, count in counts.items())


async def _by_app(reader: Reader, sql: str, organization_id: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in await reader.fetch(sql, organization_id):
        found[row["app_id"]].append(row)
    return found


async def _settings(reader: Reader, organization_id: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    sql = "SELECT app_id, key, value FROM app_settings WHERE organization_id = ? AND family = 'resource'"
    for row in await reader.fetch(sql, organization_id):
        found[row["app_id"]][row["key"]] = row["value"]
    return found


async def _counted(reader: Reader, organization_id: str) -> dict[str, Use]:
    """Builds of late, and the disk as it was measured."""
    found: dict[str, Use] = defaultdict(dict)
    at = now()
    requests = await reader.fetch(
        "SELECT project, at FROM build_requests WHERE organization_id = ? AND at > ?", organization_id, at - DAY
    )
    of_day = Counter(row["project"] for row in requests)
    of_hour = Counter(row["project"] for row in requests if row["at"] > at - HOUR)
    for project, count in of_day.items():
        found[project] |= {"builds-per-day": float(count), "builds-per-hour": float(of_hour[project])}
    disk = await reader.fetch(
        "SELECT project, volumes + snapshots + images + repositories AS bytes FROM disk_use WHERE organization_id = ?",
        organization_id,
    )
    for row in disk:
        found[row["project"]]["disk"] = float(row["bytes"])
    return found


def _add(total: Use, use: Mapping[str, float]) -> None:
    for key, value in use.items():
        total[key] = total.get(key, 0.0) + value
