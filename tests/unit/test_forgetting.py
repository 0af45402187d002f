"""What the settings under `keep` let go, and what must stay whatever they say. On a real SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from paasd import events
from paasd.build.builds import Builds
from paasd.database import new_id
from paasd.deployments import Deployments, succeed
from paasd.errors import PaasdError
from paasd.events import Events
from paasd.models import App, Build, ProcessType, Project, Push, Release, Status
from paasd.run.instances import Instances
from tests.unit.conftest import Store

_LONG_AGO = 1_000_000.0


async def a_release(store: Store, app: App) -> Release:
    """A release as old as the hills."""
    build = Build(None, app.id, 1, "a" * 40, "img:1", (ProcessType("web", "run"),), None)  # type: ignore[arg-type]
    release = await store.releases.from_build(app, build, {}, "me")
    async with store.database.transaction() as tx:
        await tx.execute("UPDATE releases SET created_at = ? WHERE id = ?", _LONG_AGO, release.id)
    return release


async def deploy(store: Store, app: App, release: Release, status: Status = Status.SUCCEEDED) -> None:
    deployments = Deployments(store.database)
    if status is Status.FAILED:
        with pytest.raises(PaasdError):
            async with deployments.attempt(store.admin, app) as deployment:
                await deployments.release(deployment, release, "rolling")
                raise PaasdError("on purpose")
        return
    deployment = await deployments.begin(store.admin, app)
    await deployments.release(deployment, release, "rolling")
    if status is Status.SUCCEEDED:
        async with store.database.transaction() as tx:
            await succeed(tx, app, deployment, draining=False, watch_until=None, baseline=None)
            await tx.execute("UPDATE apps SET release_id = ? WHERE id = ?", release.id, app.id)


async def deployed(store: Store, app: App) -> list[int]:
    return [d.number for d in await Deployments(store.database).of(app, limit=1000)]


async def versions(store: Store, app: App) -> list[int]:
    return [r.number for r in await store.releases.of(app, limit=1000)]


async def test_only_the_newest_events_stay_and_their_numbers_go_on(store: Store) -> None:
    organization = store.admin.organization_id
    async with store.database.transaction() as tx:
        for number in range(1203):
            await events.record(tx, "counted", organization_id=organization, actor="me", number=number)
    log = Events(store.database)
    before = await log.list(organization, limit=5)
    assert await log.prune(5) == 1198
    assert await log.list(organization, limit=100) == before
    assert await log.prune(5) == 0
    async with store.database.transaction() as tx:
        await events.record(tx, "counted", organization_id=organization, actor="me", number=1203)
    assert (await log.list(organization, limit=1))[0].id == before[-1].id + 1


async def test_old_deployments_go_but_what_tells_of_a_rollback_target_stays(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    first, second, third = [await a_release(store, app) for _ in range(3)]
    for release in (first, first, second, second, third):
        await deploy(store, app, release)
    for _ in range(300):
        await deploy(store, app, third, Status.FAILED)
    assert await Deployments(store.database).prune(keep=10, rollback_targets=2) == 293
    assert await deployed(store, app) == [*range(305, 295, -1), 5, 4]
    assert await store.releases.was_live(app) == {2, 3}
    assert (await store.releases.before_current(await store.apps.refresh(app))).number == second.number


async def test_a_deployment_under_way_is_never_forgotten(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    release = await a_release(store, app)
    await deploy(store, app, release, Status.RUNNING)
    await deploy(store, app, release, Status.FAILED)
    await deploy(store, app, release, Status.FAILED)
    assert await Deployments(store.database).prune(keep=0, rollback_targets=0) == 1
    assert await deployed(store, app) == [3, 1]


async def test_apps_are_counted_apart(store: Store) -> None:
    busy, quiet = await store.apps.create(store.admin, "busy"), await store.apps.create(store.admin, "quiet")
    await deploy(store, quiet, await a_release(store, quiet), Status.FAILED)
    release = await a_release(store, busy)
    for _ in range(20):
        await deploy(store, busy, release, Status.FAILED)
    await Deployments(store.database).prune(keep=3, rollback_targets=1)
    assert (await deployed(store, busy), await deployed(store, quiet)) == ([20, 19, 18], [1])


async def test_releases_go_with_the_last_deployment_that_told_of_them(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    releases = [await a_release(store, app) for _ in range(6)]
    for release in releases[:5]:
        await deploy(store, app, release)
    await Deployments(store.database).prune(keep=1, rollback_targets=2)
    assert await store.releases.prune() == 3
    # 4 and 5 can be gone back to; 6 was never deployed, but the next number comes from it.
    assert await versions(store, app) == [6, 5, 4]
    assert (await a_release(store, app)).number == 7
    assert await store.releases.prune() == 1
    assert await versions(store, app) == [7, 5, 4]


async def test_what_is_live_or_runs_or_is_new_is_never_forgotten(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    live, running = await a_release(store, app), await a_release(store, app)
    fresh = await store.releases.from_old(app, live, "me")
    await a_release(store, app)
    project = Project(app.project_id, app.organization_id, "blog", "10.9.0.0/28")
    await Instances(store.database, "label").plan(app, project, running, None, {"web": 1})  # type: ignore[arg-type]
    async with store.database.transaction() as tx:
        await tx.execute("UPDATE apps SET release_id = ? WHERE id = ?", live.id, app.id)
    assert await store.releases.prune() == 0
    assert await versions(store, app) == [4, fresh.number, running.number, live.number]


async def test_old_builds_go_with_their_logs_and_numbers_go_on(store: Store, tmp_path: Path) -> None:
    app = await store.apps.create(store.admin, "blog")
    builds = Builds(store.database, tmp_path / "logs", 1000)
    for _ in range(3):
        build = await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))
        log = builds.open_log(build)
        log.write("line")
        await log.close()
        await builds.finished(app, build, Status.FAILED)
    await builds.prune(app, 0)
    assert [b.number for b in await builds.of(app)] == [3]
    assert [path.name for path in (tmp_path / "logs").iterdir()] == [f"{build.id}.log"]
    assert (await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))).number == 4


async def test_logs_of_builds_that_are_gone_are_strays(store: Store, tmp_path: Path) -> None:
    app = await store.apps.create(store.admin, "blog")
    builds = Builds(store.database, tmp_path / "logs", 1000)
    build = await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))
    await builds.open_log(build).close()
    stray = tmp_path / "logs" / f"{new_id()}.log"
    stray.touch()
    assert await builds.stray_logs() == [stray.name]
    await builds.remove_stray_logs()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == [f"{build.id}.log"]


async def test_a_build_names_its_image_from_its_start_and_keeps_the_name_if_it_succeeds(
    store: Store, tmp_path: Path
) -> None:
    app = await store.apps.create(store.admin, "blog")
    builds = Builds(store.database, tmp_path / "logs", 1000)
    for status, name in ((Status.SUCCEEDED, "img:b1"), (Status.FAILED, ""), (Status.CANCELLED, "")):
        build = await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))
        assert build.image == ""
        await builds.started(app, build, f"img:b{build.number}")
        assert (await builds.by_number(app, build.number)).image == f"img:b{build.number}"
        await builds.finished(app, build, status)
        assert (await builds.by_number(app, build.number)).image == name
    build = await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))
    await builds.started(app, build, "img:b4")
    await builds.abandon_unfinished("killed")
    assert [b.image for b in await builds.of(app)] == ["", "", "", "img:b1"]


async def test_an_app_takes_its_project_with_it_unless_another_is_in_it(store: Store) -> None:
    one = await store.apps.create(store.admin, "one", project="shared")
    two = await store.apps.create(store.admin, "two", project="shared")
    release = await a_release(store, one)
    await deploy(store, one, release)
    assert not await store.apps.destroy(store.admin, one)
    assert await store.apps.destroy(store.admin, two)
    for table in ("apps", "projects", "releases", "deployments"):
        assert await store.database.fetch(f"SELECT * FROM {table}") == []  # noqa: S608
