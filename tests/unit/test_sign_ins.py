"""What the edge is told of an app's members, and the links they get. On a real state.db."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paasd.config import HttpConfig, SshConfig
from paasd.database import new_id
from paasd.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from paasd.gateway.policy import Gateway
from paasd.identity.sign_ins import SignIns
from paasd.identity.ssh_keys import SshKey, SshKeys
from paasd.models import Actor, App
from paasd.route.domains import Domains
from paasd.secrets import Vault
from tests.unit.conftest import Store

HTTP, MASTER = HttpConfig(domain="box.test", https_port=0), os.urandom(32)
ON = {"auth.members": "on"}


@pytest.fixture
def sign_ins(store: Store) -> SignIns:
    return SignIns(store.database, Vault(MASTER), HTTP, SshConfig(port=2222))


@pytest.fixture
async def blog(store: Store) -> App:
    return await store.apps.create(store.admin, "blog")


async def add_key(store: Store, name: str, user_id: str | None = None) -> SshKey:
    user_id = user_id or await store.users.first_user(store.admin.organization_id)
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return await SshKeys(store.database).add(store.admin, user_id, name, public)


async def told(sign_ins: SignIns, app: App) -> dict[str, object]:
    policy = await sign_ins.policy(app, ON, "blog.box.test")
    assert policy is not None
    return policy


async def test_nothing_is_told_of_apps_for_everybody(sign_ins: SignIns, blog: App) -> None:
    for values in ({}, {"auth.members": "off"}, {"auth.members.time": "300"}):
        assert await sign_ins.policy(blog, values, "blog.box.test") is None


async def test_what_the_edge_is_told(store: Store, sign_ins: SignIns, blog: App) -> None:
    key, other = await add_key(store, "laptop"), new_id()
    async with store.database.transaction() as tx:
        await tx.execute("INSERT INTO organizations VALUES (?, 'others', 0)", other)
        await tx.execute("INSERT INTO users VALUES ('eve', 'eve', 0)")
        await tx.execute("INSERT INTO memberships VALUES (?, 'eve', 'owner')", other)
    await add_key(store, "eves", "eve")  # of a user who is no member here
    policy = await told(sign_ins, blog)
    assert policy["members"] == {"root": ["root"], key.id[:16]: ["admin", "laptop"]}
    assert policy["seconds"] == 12 * 3600 and policy["host"] == "blog.box.test"
    assert policy["command"] == "ssh -p 2222 paasd@box.test apps:sign-in blog"
    longer = await sign_ins.policy(blog, {**ON, "auth.members.time": "600"}, "blog.box.test")
    assert longer is not None and longer["seconds"] == 600


async def test_keys_of_apps(store: Store, sign_ins: SignIns, blog: App) -> None:
    shop, master = await store.apps.create(store.admin, "shop"), base64.urlsafe_b64encode(MASTER).decode()
    first, second = (await told(sign_ins, blog))["key"], (await told(sign_ins, shop))["key"]
    assert len({first, second, master.rstrip("=")}) == 3
    again = SignIns(store.database, Vault(MASTER), HTTP, SshConfig())
    assert (await told(again, blog))["key"] == first, "after a restart"
    assert (await told(again, replace(blog, name="journal")))["key"] == first, "after a renaming"
    assert (await told(again, replace(blog, id=new_id())))["key"] != first, "not a namesake's"
    other_box = SignIns(store.database, Vault(os.urandom(32)), HTTP, SshConfig())
    assert (await told(other_box, blog))["key"] != first
    await sign_ins.end_all(store.admin, blog)
    third = (await told(sign_ins, blog))["key"]
    await sign_ins.end_all(store.admin, blog)
    assert len({first, third, (await told(sign_ins, blog))["key"]}) == 3
    assert (await told(sign_ins, shop))["key"] == second


async def test_a_link_is_for_one_key_app_and_address(store: Store, sign_ins: SignIns, blog: App) -> None:
    key, actor = await add_key(store, "laptop"), Actor(store.admin.organization_id, "id", "admin", "owner")
    token = await sign_ins.token(actor, key.id, blog, "https", "blog.box.test")
    text, _, signature = token.rpartition(".")
    member, made, id = text.split(".")
    assert member == key.id[:16] and made.isdigit() and len(id) == 22
    secret = base64.urlsafe_b64decode(str((await told(sign_ins, blog))["key"]) + "=")
    signed = hmac.digest(secret, f"link\nhttps\nblog.box.test\n{text}".encode(), hashlib.sha256)
    assert base64.urlsafe_b64encode(signed).decode().rstrip("=") == signature
    assert token != await sign_ins.token(actor, key.id, blog, "https", "blog.box.test")


async def test_who_gets_no_link(store: Store, sign_ins: SignIns, blog: App) -> None:
    key, actor = await add_key(store, "laptop"), Actor(store.admin.organization_id, "id", "admin", "owner")
    with pytest.raises(NotAuthenticated):
        await sign_ins.token(actor, None, blog, "http", "blog.box.test")
    assert (await sign_ins.token(store.admin, None, blog, "http", "blog.box.test")).startswith("root.")
    await SshKeys(store.database).remove(store.admin, "laptop")
    with pytest.raises(Conflict, match="was removed"):
        await sign_ins.token(actor, key.id, blog, "http", "blog.box.test")


async def test_addresses_that_a_link_may_have(store: Store, sign_ins: SignIns, blog: App) -> None:
    domains = Domains(store.database, HTTP, sign_ins)
    await domains.change(store.admin, blog, add=["blog.test", "*.wild.test"])
    for host in ("blog.test", "BLOG.test", "a.wild.test", "a.b.wild.test", "blog.box.test"):
        assert await domains.url_of(blog, host) == f"http://{host.lower()}"
    for host in ("wild.test", "*.wild.test", "shop.box.test", "awild.test", "blog.test.evil.test"):
        with pytest.raises(NotFound):
            await domains.url_of(blog, host)
    for host in ("", "a b", "blog.test/", "blog.test:80", "blog.test@evil.test", "blog.test\n"):
        with pytest.raises((InvalidInput, NotFound)):
            await domains.url_of(blog, host)


async def test_the_site_is_closed_where_nobody_says_who_members_are(store: Store, sign_ins: SignIns, blog: App) -> None:
    await Gateway(store.database).change(store.admin, blog, {"auth.members": "on"})
    for domains, parts in (
        (Domains(store.database, HTTP), {"members": {}}),
        (Domains(store.database, HTTP, sign_ins), {"members": await told(sign_ins, blog)}),
    ):
        assert json.loads((await domains.site(blog)).policy) == parts
