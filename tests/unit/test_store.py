"""What is kept in state.db, on a real SQLite."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from paasd import events
from paasd.build.builds import Builds
from paasd.database import Database
from paasd.errors import AlreadyExists, Conflict, Forbidden, InvalidInput, NotFound, PaasdError
from paasd.events import Events
from paasd.identity.policy import Action, authorize
from paasd.identity.ssh_keys import SshKeys, parse_public_key
from paasd.models import Actor, App, Build, ProcessType, Project, Push, Release, Secret, Status
from paasd.projects import Projects
from paasd.run.instances import Instances, static_addresses
from tests.unit.conftest import Store

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+kzP7nKPMfsBCpZtKnYkUM6YJ3PnJ3jkO2fH3iZ3yq me@example"
STRANGER = Actor("another-organization", "u", "stranger", "owner")


async def a_release(store: Store, app: App, image: str = "img:1", number: int = 1) -> Release:
    build = Build("", app.id, number, "a" * 40, image, (ProcessType("web", "run"), ProcessType("worker", "w")), None)
    async with store.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO builds (id, organization_id, app_id, number, revision, branch, pushed_by, status, created_at)"
            " VALUES (?, ?, ?, ?, 'r', 'main', 'me', 'succeeded', 0)",
            f"{app.id}{number}",
            app.organization_id,
            app.id,
            number,
        )
    return await store.releases.from_build(
        app, replace(build, id=f"{app.id}{number}"), await store.config_vars.get(app), "me"
    )


async def test_an_app_is_seen_by_its_own_organization_only(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    assert (await store.apps.get(store.admin.organization_id, "blog")).id == app.id
    assert app.project == "blog"
    with pytest.raises(NotFound):
        await store.apps.get(STRANGER.organization_id, "blog")
    assert await store.apps.of(STRANGER.organization_id) == []


async def test_a_taken_name_is_refused_and_nothing_stored(store: Store) -> None:
    await store.apps.create(store.admin, "blog")
    with pytest.raises(AlreadyExists):
        await store.apps.create(store.admin, "blog", project="other")
    assert [p.name for p in await Projects(store.database).all()] == ["blog"]
    assert len(await store.apps.all()) == 1


async def test_scale_is_merged_and_bounded(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    app = await store.apps.set_scale(store.admin, app, {"web": 2})
    app = await store.apps.set_scale(store.admin, app, {"worker": 1})
    assert app.scale == {"web": 2, "worker": 1}
    for wrong in ({"web": -1}, {"web": 51}, {"We b": 1}):
        with pytest.raises(InvalidInput):
            await store.apps.set_scale(store.admin, app, wrong)


async def test_config_vars_are_sealed_and_change_together(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    assert await store.config_vars.change(store.admin, app, {"A": Secret("canary-1"), "B": Secret("2")})
    assert not await store.config_vars.change(store.admin, app, {"A": Secret("canary-1")})
    assert await store.config_vars.change(store.admin, app, {"A": None})
    assert await store.config_vars.get(app) == {"B": Secret("2")}
    with pytest.raises(InvalidInput):
        await store.config_vars.change(store.admin, app, {"C": Secret("3"), "1X": Secret("4")})
    assert await store.config_vars.get(app) == {"B": Secret("2")}


@pytest.mark.parametrize("name", ["PORT", "DYNO", "PAASD_URL"])
async def test_what_paasd_sets_itself_cannot_be_set(store: Store, name: str) -> None:
    app = await store.apps.create(store.admin, "blog")
    with pytest.raises(InvalidInput, match="set by paasd"):
        await store.config_vars.change(store.admin, app, {name: Secret("x")})


async def test_secrets_are_nowhere_in_the_database_files(store: Store, tmp_path: Path) -> None:
    app = await store.apps.create(store.admin, "blog")
    await store.config_vars.change(store.admin, app, {"TOKEN": Secret("canary-cnry")})
    await a_release(store, app)
    await store.database.close()
    for path in tmp_path.glob("state.db*"):
        assert b"canary-cnry" not in path.read_bytes()
    await store.database.open()


async def test_releases_are_numbered_and_immutable(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    await store.config_vars.change(store.admin, app, {"A": Secret("1")})
    first = await a_release(store, app)
    await store.config_vars.change(store.admin, app, {"A": Secret("2")})
    second = await store.releases.with_config(app, first, await store.config_vars.get(app), "me", "Set A")
    third = await store.releases.from_old(app, first, "me")
    assert [r.version for r in await store.releases.of(app)] == ["v3", "v2", "v1"]
    assert (first.config, second.config, third.config) == (
        {"A": Secret("1")},
        {"A": Secret("2")},
        {"A": Secret("1")},
    )
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        async with store.database.transaction() as tx:
            await tx.execute("UPDATE releases SET image = 'other' WHERE id = ?", first.id)


async def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(store: Store) -> None:
    with pytest.raises(RuntimeError):
        async with store.database.transaction() as tx:
            await events.record(tx, "x", organization_id=store.admin.organization_id, actor="me")
            raise RuntimeError
    assert await Events(store.database).list(store.admin.organization_id) == []
    await store.apps.create(store.admin, "blog")


async def test_events_are_listed_oldest_first_with_a_cursor(store: Store) -> None:
    for name in ("one", "two", "three"):
        await store.apps.create(store.admin, name)
    log = Events(store.database)
    listed = await log.list(store.admin.organization_id)
    assert [event.app for event in listed] == ["one", "two", "three"]
    assert [e.app for e in await log.list(store.admin.organization_id, after=listed[0].id, limit=1)] == ["two"]
    assert await log.list(STRANGER.organization_id) == []


async def test_unfinished_builds_fail_at_the_next_start(store: Store, tmp_path: Path) -> None:
    app = await store.apps.create(store.admin, "blog")
    builds = Builds(store.database, tmp_path / "logs", 1000)
    build = await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))
    await builds.started(app, build, "img:1")
    assert await builds.abandon_unfinished("the daemon stopped") == 1
    found = await builds.by_number(app, build.number)
    assert (found.status, found.reason) == (Status.FAILED, "the daemon stopped")
    told = (await Events(store.database).list(store.admin.organization_id))[-1]
    assert (told.type, told.app, told.actor) == ("build.completed", "blog", "me")
    assert told.data == {"build": 1, "status": "failed", "reason": "the daemon stopped"}
    await builds.finished(app, build, Status.SUCCEEDED)
    assert (await builds.by_number(app, build.number)).status is Status.FAILED


async def test_a_build_log_is_cut_at_its_limit_and_says_so(store: Store, tmp_path: Path) -> None:
    app = await store.apps.create(store.admin, "blog")
    builds = Builds(store.database, tmp_path / "logs", 100)
    build = await builds.request(app, Push("p", app.id, "a" * 40, "main", "me"))
    log = builds.open_log(build)
    for _ in range(50):
        log.write("0123456789")
    await log.close()
    text = b"".join([piece async for piece in builds.read_log(app, build)]).decode()
    assert text.count("0123456789") == 9
    assert "build.log_limit" in text


async def test_addresses_go_round_and_are_never_shared(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    release = await a_release(store, app)
    project = Project(app.project_id, app.organization_id, "blog", "10.9.0.0/28")
    instances = Instances(store.database, "label")
    pool = static_addresses("10.9.0.0/28")
    assert pool == [f"10.9.0.{n}" for n in range(2, 12)]
    first = await instances.plan(app, project, release, None, {"web": 3})  # type: ignore[arg-type]
    assert len({row.address for row in first}) == 3
    await instances.forget([row.name for row in first])
    second = await instances.plan(app, project, release, None, {"web": 3})  # type: ignore[arg-type]
    assert not {row.address for row in first} & {row.address for row in second}
    with pytest.raises(Conflict, match="full"):
        await instances.plan(app, project, release, None, {"web": 9})  # type: ignore[arg-type]
    assert len(await instances.all()) == 3


async def test_a_public_key_belongs_to_one_user(store: Store) -> None:
    keys = SshKeys(store.database)
    user = await store.users.first_user(store.admin.organization_id)
    key = await keys.add(store.admin, user, "laptop", ED25519)
    assert key.fingerprint.startswith("SHA256:")
    with pytest.raises(AlreadyExists, match="laptop"):
        await keys.add(store.admin, user, "other", ED25519)
    _, blob = parse_public_key(ED25519)
    found = await keys.find(blob)
    assert found and found.id == key.id
    await keys.remove(store.admin, "laptop")
    assert await keys.find(blob) is None
    with pytest.raises(NotFound):
        await keys.remove(store.admin, "laptop")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 !!!",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f"{ED25519}\n{ED25519}",
        "x" * 20000,
    ],
)
def test_what_is_not_a_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_public_key(text)
    assert "id_ed25519.pub" in caught.value.hint


def test_roles_and_foreign_objects() -> None:
    admin, developer, viewer = (Actor("org", "u", role, role) for role in ("admin", "developer", "viewer"))
    for action in Action:
        authorize(admin, action, "org")
        with pytest.raises(NotFound):
            authorize(admin, action, "other")
    authorize(developer, Action.APP_DEPLOY, "org")
    authorize(viewer, Action.APP_READ, "org")
    for actor, action in ((developer, Action.KEY_WRITE), (developer, Action.APP_DESTROY), (viewer, Action.CONFIG_READ)):
        for _ in range(2):
            with pytest.raises(Forbidden, match=actor.role):
                authorize(actor, action, "org")
    with pytest.raises(Forbidden):
        authorize(Actor("org", "u", "x", "unheard-of"), Action.APP_READ, "org")


async def test_a_database_from_the_future_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    database = Database(path)
    with pytest.raises(PaasdError, match="schema 999"):
        await database.open()
    await database.close()
    path.write_bytes(b"not a database at all" * 500)
    broken = Database(path)
    with pytest.raises(PaasdError, match="cannot be opened"):
        await broken.open()
    await broken.close()
