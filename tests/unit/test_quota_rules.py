"""Quotas on a real SQLite: what counts, what is refused, what is told, and that two that ask at once cannot both get
the last of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paasd.apps import Apps
from paasd.build.app_images import ImageSize
from paasd.build.builds import Builds
from paasd.config import RunConfig
from paasd.database import Transaction, new_id, now
from paasd.deployments import Deployments
from paasd.disk_use import counted
from paasd.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded
from paasd.events import Events
from paasd.identity.policy import Action, authorize
from paasd.models import Actor, App, Build, ProcessType, Push, Release, Status
from paasd.quota_gate import Asking
from paasd.quotas import Quotas
from paasd.resources import Resources
from tests.unit.conftest import Store

MIB = 1024**2
RUN = RunConfig(memory=100 * MIB, cpus=0.5)


class Limited:
    """A store whose parts ask a gate."""

    def __init__(self, store: Store, tmp_path: Path) -> None:
        self.store, self.admin, self.database = store, store.admin, store.database
        self.quotas = Quotas(store.database, RUN)
        self.apps = Apps(store.database, self.quotas.gate)
        self.resources = Resources(store.database, RUN, self.quotas.gate)
        self.deployments = Deployments(store.database, self.quotas.gate)
        self.builds = Builds(store.database, tmp_path / "logs", 1000, self.quotas.gate)

    async def set(self, project: str = "", **values: str | None) -> None:
        await self.quotas.change(self.admin, project, {k.replace("_", "-"): v for k, v in values.items()})

    async def used(self, key: str, project: str = "") -> float:
        found = await self.quotas.report(self.admin.organization_id, project)
        return float(found[0]["quotas"][key]["used"])

    async def release(self, app: App, *types: str) -> Release:
        made = Build(None, app.id, 1, "a" * 40, "image", tuple(ProcessType(t, "x") for t in types), None)  # type: ignore[arg-type]
        return await self.store.releases.from_build(app, made, {}, "me")

    async def live(self, app: App, *types: str) -> App:
        release = await self.release(app, *types)
        async with self.database.transaction() as tx:
            await tx.execute("UPDATE apps SET release_id = ? WHERE id = ?", release.id, app.id)
        return await self.apps.refresh(app)

    async def begin(self, app: App, release: Release) -> None:
        deployment = await self.deployments.begin(self.admin, app)
        asking = Asking(app.organization_id, app.project, "me", app.name)
        await self.deployments.release(deployment, release, "rolling", asking=asking)

    async def told(self) -> list[tuple[str, str | None, str]]:
        events = await Events(self.database).list(self.admin.organization_id)
        return [
            (e.type, e.data["project"], e.data["quota"]) for e in events if e.type in ("quota.warning", "quota.reached")
        ]


@pytest.fixture
async def limited(store: Store, tmp_path: Path) -> AsyncIterator[Limited]:
    yield Limited(store, tmp_path)


def push(app: App) -> Push:
    return Push("p", app.id, "a" * 40, "main", "me")


async def test_apps_count_per_project_and_per_organization(limited: Limited) -> None:
    await limited.set(apps="3")
    await limited.set("blog", apps="1")
    await limited.apps.create(limited.admin, "blog")
    with pytest.raises(QuotaExceeded) as refused:
        await limited.apps.create(limited.admin, "admin", project="blog")
    assert "quota apps of project blog is 1; 1 are used, and this asks for 1 more" in refused.value.detail
    assert "apps:destroy" in refused.value.hint
    assert "quota:set --project blog apps=2" in refused.value.hint
    await limited.apps.create(limited.admin, "shop")
    await limited.apps.create(limited.admin, "wiki")
    with pytest.raises(QuotaExceeded, match="the organization is 3"):
        await limited.apps.create(limited.admin, "more")
    assert len(await limited.apps.all()) == 3, "a refused one leaves nothing"


async def test_scaling_counts_memory_and_cpu_at_the_limits(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web", "worker", "release")
    await limited.set(memory="400m", cpu="1.5")
    app = await limited.apps.set_scale(limited.admin, app, {"web": 2, "worker": 1})
    assert await limited.used("memory") == 300 * MIB
    assert await limited.used("cpu") == 1.5
    with pytest.raises(
        QuotaExceeded, match=r"quota cpu of the organization is 1\.5; 1\.5 are used, and this asks for 0\.5"
    ):
        await limited.apps.set_scale(limited.admin, app, {"worker": 2})
    assert (await limited.apps.refresh(app)).scale == {"web": 2, "worker": 1}
    await limited.set(cpu=None)
    await limited.apps.set_scale(limited.admin, app, {"worker": 2})
    with pytest.raises(QuotaExceeded, match="quota memory"):
        await limited.resources.change(limited.admin, app, {"worker.memory": "101m"})
    assert (await limited.resources.of(app)).values == {}
    await limited.resources.change(limited.admin, app, {"worker.memory": "50m"})
    assert await limited.used("memory") == 300 * MIB


async def test_what_runs_is_never_stopped_and_less_may_always_be_asked_for(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web")
    app = await limited.apps.set_scale(limited.admin, app, {"web": 4})
    await limited.set(memory="150m", apps="0")
    app = await limited.apps.set_scale(limited.admin, app, {"web": 3})
    await limited.begin(app, await limited.release(app, "web"))
    with pytest.raises(QuotaExceeded):
        await limited.apps.set_scale(limited.admin, app, {"web": 4})


async def test_a_deployment_is_counted_once_and_the_larger_release_of_the_two(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web")
    app = await limited.apps.set_scale(limited.admin, app, {"web": 1, "worker": 1})
    await limited.set(memory="200m")
    await limited.begin(app, await limited.release(app, "web", "worker"))
    assert await limited.used("memory") == 200 * MIB
    with pytest.raises(QuotaExceeded, match="300 MiB more") as refused:
        await limited.apps.set_scale(limited.admin, app, {"web": 4})
    assert refused.value.status == 403
    await limited.set(memory="150m")
    assert await limited.deployments.abandon_unfinished("over") == 1
    assert await limited.used("memory") == 100 * MIB, "what was not switched to is not counted"
    with pytest.raises(QuotaExceeded):
        await limited.begin(app, await limited.release(app, "web", "worker"))


async def test_a_stopped_app_uses_nothing_until_it_is_started(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web")
    async with limited.database.transaction() as tx:
        await tx.execute("UPDATE apps SET stopped = 1 WHERE id = ?", app.id)
    assert await limited.used("memory") == 0
    await limited.set(memory="99m")
    deployment = await limited.deployments.begin(limited.admin, app)
    release = await limited.release(app, "web")
    await limited.deployments.release(deployment, release, "rolling", stopped=True)
    assert await limited.used("memory") == 0
    await limited.deployments.abandon_unfinished("over")
    with pytest.raises(QuotaExceeded, match="quota memory of the organization is 99 MiB; 0 B are used"):
        await limited.begin(app, release)


async def test_formation_counts_for_what_nobody_scaled(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web", "worker")
    async with limited.database.transaction() as tx:
        await tx.execute("DROP TRIGGER releases_are_immutable")
        await tx.execute("UPDATE releases SET app_json = ?", json.dumps({"formation": {"web": 2, "worker": 1}}))
    assert await limited.used("memory") == 300 * MIB
    app = await limited.apps.set_scale(limited.admin, app, {"web": 1})
    assert await limited.used("memory") == 200 * MIB
    await limited.apps.set_scale(limited.admin, app, {"worker": 0})
    assert await limited.used("memory") == 100 * MIB


async def test_two_that_ask_at_once_cannot_both_get_the_last_of_it(limited: Limited) -> None:
    names = [f"app{n}" for n in range(8)]
    apps = [await limited.live(await limited.apps.create(limited.admin, name), "web") for name in names]
    await limited.set(memory="1000m")
    scaled = await asyncio.gather(
        *(limited.apps.set_scale(limited.admin, app, {"web": 2}) for app in apps), return_exceptions=True
    )
    assert sum(isinstance(result, QuotaExceeded) for result in scaled) == 6
    assert await limited.used("memory") == 1000 * MIB
    await limited.set(apps="10")
    created = await asyncio.gather(
        *(limited.apps.create(limited.admin, f"new{n}") for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, App) for result in created) == 2
    await limited.set(apps=None, builds="3")
    built = await asyncio.gather(*(limited.builds.request(app, push(app)) for app in apps), return_exceptions=True)
    assert sum(isinstance(result, QuotaExceeded) for result in built) == 5


async def test_builds_at_a_time_are_counted_by_app_and_of_late_by_push(limited: Limited) -> None:
    one, two = [await limited.apps.create(limited.admin, name, project="blog") for name in ("one", "two")]
    await limited.set("blog", builds="1", builds_per_hour="3", builds_per_day="4")
    first = await limited.builds.request(one, push(one))
    await limited.builds.request(one, push(one))  # takes the place of the first
    with pytest.raises(QuotaExceeded, match="quota builds of project blog is 1"):
        await limited.builds.request(two, push(two))
    assert len(await limited.builds.of(two)) == 0
    await limited.builds.abandon_unfinished("over")
    await limited.builds.request(two, push(two))
    with pytest.raises(QuotaExceeded, match="quota builds-per-hour of project blog is 3; 3 are used"):
        await limited.builds.request(two, push(two))
    assert first.status is Status.QUEUED
    # Neither an app that is made anew nor an hour that passes forgets those of the day.
    await limited.apps.destroy(limited.admin, one)
    await limited.apps.destroy(limited.admin, two)
    async with limited.database.transaction() as tx:
        await tx.execute("UPDATE build_requests SET at = at - 3601")
    again = await limited.apps.create(limited.admin, "one", project="blog")
    await limited.builds.request(again, push(again))
    with pytest.raises(QuotaExceeded, match="quota builds-per-day of project blog is 4; 4 are used"):
        await limited.builds.request(again, push(again))
    async with limited.database.transaction() as tx:
        await tx.execute("UPDATE build_requests SET at = at - 86401")
    await limited.builds.request(again, push(again))


async def test_previews_count_in_the_project_of_their_app(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web")
    await limited.set("blog", apps="2", memory="200m", builds_per_day="1")

    async def preview(name: str) -> App:
        async def also(tx: Transaction, app_id: str) -> None:
            await tx.execute("INSERT INTO previews VALUES (?, ?, ?, ?, 0)", app_id, app.organization_id, app.id, name)

        return await limited.apps.create(limited.admin, name, environment="preview", also=also)

    made = await preview("x--blog")
    with pytest.raises(QuotaExceeded, match="quota apps of project blog is 2"):
        await preview("y--blog")
    assert await limited.used("apps", "blog") == 2
    await limited.begin(made, await limited.release(made, "web"))
    assert await limited.used("memory", "blog") == 200 * MIB
    with pytest.raises(QuotaExceeded, match="quota memory of project blog"):
        await limited.apps.set_scale(limited.admin, app, {"web": 2})
    with pytest.raises(QuotaExceeded, match="quota memory of project blog"):
        await limited.resources.change(limited.admin, made, {"memory": "101m"})
    await limited.builds.request(made, push(made))
    await limited.apps.destroy(limited.admin, made)
    with pytest.raises(QuotaExceeded, match="quota builds-per-day of project blog"):
        await limited.builds.request(app, push(app))


async def test_the_disk_refuses_once_it_is_used_up(limited: Limited) -> None:
    app = await limited.apps.create(limited.admin, "blog")
    await limited.set(disk="100m")
    assert await limited.quotas.room_on_disk(app.organization_id, "blog") == 100 * MIB
    async with limited.database.transaction() as tx, limited.quotas.watched(tx, app.organization_id):
        values = (app.organization_id, "blog", 60 * MIB, 0, 30 * MIB, 5 * MIB, now())
        await tx.execute("INSERT INTO disk_use VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
    assert await limited.told() == [("quota.warning", None, "disk")]
    await limited.builds.request(app, push(app))
    async with limited.database.transaction() as tx, limited.quotas.watched(tx, app.organization_id):
        await tx.execute("UPDATE disk_use SET images = images + ?", 5 * MIB)
    with pytest.raises(QuotaExceeded, match="100 MiB are used, and this writes more"):
        await limited.builds.request(app, push(app))
    assert await limited.told() == [("quota.warning", None, "disk"), ("quota.reached", None, "disk")]
    assert await limited.quotas.room_on_disk(app.organization_id, "blog") == 0


async def test_coming_near_is_told_once_and_shown(limited: Limited) -> None:
    app = await limited.live(await limited.apps.create(limited.admin, "blog"), "web")
    await limited.set("blog", memory="500m")
    for count in (3, 4, 4, 5, 4, 5):
        app = await limited.apps.set_scale(limited.admin, app, {"web": count})
    of_memory = [kind for kind, project, key in await limited.told() if (project, key) == ("blog", "memory")]
    assert of_memory == ["quota.warning", "quota.reached", "quota.reached"]
    assert await limited.quotas.warnings(app) == ["project blog uses 500 MiB of its quota memory of 500 MiB (100 %)"]
    await limited.set("blog", memory="1000m", warn="50")
    assert "(50 %)" in (await limited.quotas.warnings(app))[0]
    await limited.set("blog", warn=None)
    assert await limited.quotas.warnings(app) == []


async def test_organizations_do_not_count_for_each_other(limited: Limited) -> None:
    other = Actor(new_id(), None, "stranger", "owner")
    async with limited.database.transaction() as tx:
        await tx.execute("INSERT INTO organizations VALUES (?, 'other', 0)", other.organization_id)
    await limited.quotas.change(other, "", {"apps": "1"})
    await limited.apps.create(limited.admin, "one")
    await limited.apps.create(limited.admin, "two")
    await limited.apps.create(other, "three")
    with pytest.raises(QuotaExceeded):
        await limited.apps.create(other, "four")
    mine = await limited.quotas.report(limited.admin.organization_id)
    assert [scope["project"] for scope in mine] == [None, "one", "two"]
    assert mine[0]["quotas"]["apps"]["limit"] is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("apps", "-1"), ("apps", "many"), ("memory", "0"), ("cpu", "0"), ("warn", "101"), ("warn", "0"), ("disks", "1g")],
)
async def test_bad_quotas_are_refused(limited: Limited, key: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        await limited.quotas.change(limited.admin, "", {"builds": "1", key: value})
    assert await limited.quotas.report(limited.admin.organization_id, "") == [
        {**scope, "quotas": {k: {**q, "limit": None} for k, q in scope["quotas"].items()}}
        for scope in await limited.quotas.report(limited.admin.organization_id, "")
    ], "all or none"


def test_quotas_are_for_administrators() -> None:
    for role, allowed in (("viewer", False), ("developer", False), ("admin", True), ("owner", True)):
        actor = Actor("o", "u", "somebody", role)
        if allowed:
            authorize(actor, Action.QUOTA_CHANGE, "o")
        else:
            with pytest.raises(Forbidden):
                authorize(actor, Action.QUOTA_CHANGE, "o")
    with pytest.raises(NotFound):
        authorize(Actor("o", "u", "somebody", "owner"), Action.QUOTA_CHANGE, "another")


def test_shared_layers_of_an_apps_images_count_once() -> None:
    base = [ImageSize(200, 20), ImageSize(230, 50), ImageSize(210, 30)]
    assert counted(base) == 230 + 20 + 30
    assert counted([]) == 0
