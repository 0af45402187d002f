"""Months of certificates in seconds: the real pebble and a real edge, and a clock of our own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from paasd.apps import Apps
from paasd.config import AcmeConfig, HttpConfig
from paasd.database import Database
from paasd.errors import CertificateError, Conflict
from paasd.events import Events
from paasd.identity.users import Users
from paasd.jobs.job import Job
from paasd.jobs.table import Jobs
from paasd.models import Actor, App
from paasd.progress import Progress
from paasd.route import pem
from paasd.route.acme.authority import Authority as AcmeAuthority
from paasd.route.acme.challenges import Challenges
from paasd.route.acme.dns import Hook
from paasd.route.acme.rules import DAY
from paasd.route.authority_keys import AuthorityKeys
from paasd.route.certificates import Certificates, Source, StoredCertificate
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.route.issuing import Issuing
from paasd.route.local_ca import LocalAuthority
from paasd.route.serving import Serving
from paasd.route.troubles import Troubles
from paasd.secrets import Vault
from paasd.tls_settings import TlsSettings
from tests.acme import ZONE, Exchange, FaultyProxy, NameServer, Pebble, at, authority, problem
from tests.clock import Clock
from tests.ports import free_port
from tests.tls import Authority

TEMPLATES = Path(__file__).parents[2] / "nginx"


@pytest.fixture(scope="module")
def http_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def town(http_port: int) -> Iterator[tuple[NameServer, FaultyProxy]]:
    with authority(http_port) as (names, pebble):
        proxy = FaultyProxy(pebble)
        yield names, proxy
        proxy.close()


@dataclass
class Small:
    """What issues certificates, without a box around it."""

    database: Database
    admin: Actor
    app: App
    clock: Clock
    issuing: Issuing
    certificates: Certificates
    troubles: Troubles
    settings: TlsSettings
    serving: Serving
    edge: Edge
    apps: Apps

    async def newest(self) -> StoredCertificate:
        return (await self.certificates.of(self.app))[0]

    async def look(self) -> None:
        await self.issuing.look(self.app, Progress())

    async def events(self, type: str) -> list[dict[str, Any]]:
        found = await Events(self.database).list(self.admin.organization_id, limit=200)
        return [dict(event.data) for event in found if event.type == type]

    async def next_look(self) -> float:
        """Days from now."""
        row = await self.database.fetch_one("SELECT run_at FROM jobs WHERE type = 'certificate.issue'")
        assert row is not None
        return float(row["run_at"] - self.clock()) / DAY

    async def survey(self) -> None:
        handler = next(handler for handler in self.issuing.handlers() if handler.every)
        await handler.run(Job(0, None, None, handler.type.queue, "", {}, None, 0, 0, None, 0, 1, None, "", 0, 0, None))  # type: ignore[arg-type]


@asynccontextmanager
async def small(http_port: int, acme: AcmeConfig, *domains: str) -> AsyncIterator[Small]:
    with tempfile.TemporaryDirectory(prefix="pts", dir="/tmp") as name:
        root, clock = Path(name), Clock()
        http = HttpConfig(address="127.0.0.1", port=http_port, https_port=free_port())
        database = Database(root / "state.db")
        await database.open()
        admin = await Users(database).bootstrap()
        vault, apps = Vault(os.urandom(32)), Apps(database)
        certificates, settings, troubles = (
            Certificates(database, vault, clock),
            TlsSettings(database),
            Troubles(database, clock),
        )
        edge, keys, names = (
            Edge(root / "edge", TEMPLATES, http),
            AuthorityKeys(database, vault),
            Domains(database, http),
        )
        serving = Serving(http, apps, names, certificates, settings, edge.tls, clock)
        issuing = Issuing(
            database, acme, apps, names, Jobs(database, clock), certificates, troubles, settings, serving,
            AcmeAuthority(acme, keys, Challenges(acme, edge.tls)), LocalAuthority(keys, clock), clock,
        )  # fmt: skip
        try:
            await edge.start()
            app = await apps.create(admin, "blog")
            for domain in domains:
                await names.change(admin, app, add=[domain])
            await edge.set_site(await names.site(app))
            yield Small(database, admin, app, clock, issuing, certificates, troubles, settings, serving, edge, apps)
        finally:
            await edge.stop()
            await database.close()


def config(proxy: FaultyProxy, **more: Any) -> AcmeConfig:
    return AcmeConfig(email="a@b.test", directory=proxy.directory, ca_bundle=str(proxy.pebble.ca_file), **more)


@pytest.mark.parametrize(("days", "renewed"), [(64, 64 * 2 / 3), (45, 30.0), (6, 3.0)])
async def test_renewed_in_time_whatever_the_lifetime(
    town: tuple[NameServer, FaultyProxy], http_port: int, tmp_path: Path, days: int, renewed: float
) -> None:
    host = f"www.{ZONE}"
    pebble = Pebble(tmp_path, http_port, town[0].port, days=days)
    proxy = FaultyProxy(pebble)
    try:
        async with small(http_port, config(proxy), host) as it:
            await it.look()
            first = await it.newest()
            assert await it.next_look() == pytest.approx(renewed, abs=0.01)
            it.clock.ahead = (renewed - 0.01) * DAY
            await it.look()
            assert await it.newest() == first and proxy.seen.count("order-plz") == 1
            it.clock.ahead = (renewed + 0.01) * DAY
            await it.look()
            assert await it.newest() != first and proxy.seen.count("order-plz") == 2
            assert await it.serving.is_served(await it.newest(), host)
            assert len(await it.certificates.of(it.app)) == 1
    finally:
        proxy.close()
        pebble.stop()


async def test_a_wildcard_without_dns_is_told_and_holds_up_no_other(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    host, wildcard, (names, proxy) = f"plain.{ZONE}", f"*.plain.{ZONE}", town
    before = proxy.seen.count("order-plz")
    async with small(http_port, config(proxy), wildcard, host) as it:
        await it.look()
        assert (await it.newest()).names == (host,) and await it.serving.is_served(await it.newest(), host)
        unserved = (await it.issuing.wanted(it.app)).unserved
        assert unserved.keys() == {wildcard} and "acme.dns is not set" in unserved[wildcard]
        assert proxy.seen.count("order-plz") == before + 1 and not await it.troubles.of(it.app)
    with_dns = config(proxy, dns="rfc2136", dns_server=f"127.0.0.1:{names.port}")
    async with small(http_port, with_dns, wildcard, host) as it:
        assert not (await it.issuing.wanted(it.app)).unserved
        await it.settings.change(it.admin, it.app, {"challenge": "http-01"})
        assert "http-01" in (await it.issuing.wanted(it.app)).unserved[wildcard]


async def test_failing_renewals_are_retried_ever_more_rarely_and_told_of_once(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    """The old certificate serves to its last second, and beyond it what there is."""
    host, (_, proxy) = f"old.{ZONE}", town
    proxy.reset()
    async with small(http_port, config(proxy), host) as it:
        await it.look()
        old = await it.newest()
        proxy.fault = at("order-plz", problem(503, "serverInternal", "closed"))
        it.clock.ahead = 60.1 * DAY
        waits = []
        for _ in range(5):
            await it.look()
            waits.append(await it.next_look() * DAY)
            it.clock.ahead += waits[-1] + 1
        assert waits == pytest.approx([60, 600, 6000, DAY, DAY], abs=2)
        assert await it.serving.is_served(old, host) and await it.events("certificate.expiring") == []
        asked = len(proxy.seen)
        it.clock.ahead -= 3000
        await it.look()
        assert len(proxy.seen) == asked, "not before its time"
        it.clock.ahead = 75.1 * DAY
        await it.survey()
        await it.survey()
        (alarm,) = await it.events("certificate.expiring")
        assert alarm["certificate"] == old.id and "closed" in alarm["problem"]
        it.clock.ahead = 90.1 * DAY
        await it.look()
        await it.serving.sync()
        assert await it.serving.is_served(old, host) and (await it.serving.of(it.app)).redirects == ()
        proxy.reset()
        it.clock.ahead = 80 * DAY
        await it.issuing.look(it.app, Progress(), impatient=True)
        assert await it.newest() != old and await it.troubles.of(it.app) == {}


async def test_who_asks_again_and_again_is_told_to_wait(town: tuple[NameServer, FaultyProxy], http_port: int) -> None:
    host, (_, proxy) = f"hasty.{ZONE}", town
    proxy.reset()
    async with small(http_port, config(proxy), host) as it:
        proxy.fault = at("order-plz", problem(429, "rateLimited", "too many", Retry_After="7200"))
        with pytest.raises(CertificateError, match="too many"):
            await it.issuing.enable(it.admin, it.app, Progress())
        for it.clock.ahead in (0, 61, 7100):
            with pytest.raises(Conflict, match="too many"):
                await it.issuing.enable(it.admin, it.app, Progress())
        assert proxy.seen.count("order-plz") == 1
        proxy.fault = at("order-plz", problem(503, "serverInternal", "closed"))
        for it.clock.ahead, error in ((7300, CertificateError), (7310, Conflict), (7370, CertificateError)):
            with pytest.raises(error, match="closed"):
                await it.issuing.enable(it.admin, it.app, Progress())
        assert proxy.seen.count("order-plz") == 3


async def test_what_cannot_be_kept_is_not_ordered_again_at_once(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    """Neither the certificate nor the trouble with it, as on a disk that is full."""
    host, (_, proxy) = f"full.{ZONE}", town
    proxy.reset()
    async with small(http_port, config(proxy), host) as it:
        async with it.database.transaction() as tx:
            for table in ("certificates", "certificate_troubles"):
                await tx.execute(
                    f"CREATE TRIGGER full_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
                )
        with contextlib.suppress(Exception):
            await it.look()
        assert proxy.seen.count("order-plz") == 1
        async with it.database.transaction() as tx:
            await tx.execute("DROP TRIGGER full_certificate_troubles")
        with contextlib.suppress(Exception):
            await it.look()
        with contextlib.suppress(Exception):
            await it.look()
        assert proxy.seen.count("order-plz") == 2 and host in await it.troubles.of(it.app)


async def test_previews_get_public_certificates_only_where_somebody_asks(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    async with small(http_port, config(town[1]), f"shop.{ZONE}") as it:
        preview = await it.apps.create(it.admin, "preview", environment="preview")
        assert any((await it.issuing.wanted(it.app)).names.values())
        assert not any((await it.issuing.wanted(preview)).names.values())
        await it.settings.change(it.admin, preview, {"automatic": "on"})
        assert any((await it.issuing.wanted(preview)).names.values())


async def test_the_authority_says_when(town: tuple[NameServer, FaultyProxy], http_port: int) -> None:
    """By a window that another server made up, since pebble has no such thing yet (RFC 9773)."""
    host, (_, proxy) = f"ari.{ZONE}", town
    proxy.reset()
    async with small(http_port, config(proxy), host) as it:
        await it.look()
        first = await it.newest()
        soon = datetime.fromtimestamp(time.time() + 5 * DAY, UTC)
        proxy.renewal_window = (soon.isoformat(), soon.isoformat())
        await it.survey()
        assert (await it.newest()).renew_at == pytest.approx(soon.timestamp(), abs=2)
        assert await it.next_look() == pytest.approx(5, abs=0.01)
        await it.survey()
        assert proxy.seen.count("renewal-info") == 1, "asked no more often than it wants to be"
        it.clock.ahead = DAY
        proxy.renewal_window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
        await it.survey()
        assert await it.next_look() <= 0.001, "revoked or about to be: now"
        await it.look()
        assert await it.newest() != first
        proxy.renewal_window, proxy.fault = ("x", "y"), None
        await it.survey()
        assert (await it.newest()).renew_at is None, "nonsense is passed over"


async def test_an_authority_that_gives_no_answer_is_asked_once_and_after_all_else(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    hosts, (_, proxy) = [f"a.{ZONE}", f"b.{ZONE}"], town
    proxy.reset()
    async with small(http_port, config(proxy), *hosts) as it:
        root = Authority.new()
        for host in hosts:
            bundle = pem.checked(pem.read("".join(root.leaf([host], days=30, age=27)) + root.pem), hosts, time.time())
            await it.certificates.add("paasd", it.app, Source.ACME, bundle, directory=proxy.directory)
        told: list[int] = []

        def gone(exchange: Exchange) -> None:
            with contextlib.closing(sqlite3.connect(it.database._path, timeout=5)) as database:
                told.append(database.execute("SELECT count(*) FROM certificates WHERE alarmed_at > 0").fetchone()[0])
            raise ConnectionAbortedError

        proxy.fault = at("dir", gone)
        await it.survey()
        assert told == [2]
        assert len([each for each in await it.certificates.of(it.app) if each.ask_after]) == 1
        await it.survey()
        assert told == [2, 2] and all(each.ask_after for each in await it.certificates.of(it.app))


async def test_an_authority_that_answers_byte_by_byte(tmp_path: Path) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not done.is_set():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    done, ended = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    directory = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/dir"
    database = Database(tmp_path / "state.db")
    await database.open()
    try:
        acme = AcmeConfig(email="a@b.test", directory=directory, timeout=0.2)
        small_authority = AcmeAuthority(acme, AuthorityKeys(database, Vault(os.urandom(32))), Challenges(acme, None))  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            with pytest.raises(CertificateError, match="in time"):
                await small_authority.renewal_time("")
    finally:
        done.set()
        await asyncio.wait_for(ended.wait(), 10)
        server.close()
        await database.close()


async def test_a_root_that_is_not_valid_now_is_made_anew(http_port: int) -> None:
    """Made under a wrong clock, or ten years ago."""
    async with small(http_port, AcmeConfig(), "blog.lan") as it:
        it.clock.ahead, roots = 400 * DAY, []
        for it.clock.ahead in (400 * DAY, 0, 3500 * DAY, 3561 * DAY):
            roots.append(await it.issuing.local_root())
            assert await it.issuing.local_root() == roots[-1]
            root = x509.load_pem_x509_certificate(roots[-1].encode())
            assert root.not_valid_before_utc.timestamp() <= it.clock() < root.not_valid_after_utc.timestamp() - 90 * DAY
        assert len(set(roots)) == 3 and roots[1] == roots[2]


async def test_an_edge_that_is_down_does_not_have_the_authority_asked_again_and_again(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    host, (_, proxy) = f"down.{ZONE}", town
    proxy.reset()
    async with small(http_port, config(proxy), host) as it:
        await it.edge.stop()
        for _ in range(3):
            await it.look()
        assert proxy.seen.count("order-plz") == 1 and await it.next_look() * DAY == pytest.approx(60, abs=5)
        assert "control socket" in (await it.troubles.of(it.app))[host].problem
        await it.edge.ensure_running()
        it.clock.ahead = 61
        await it.look()
        assert await it.serving.is_served(await it.newest(), host)


async def test_local_certificates_for_a_year(http_port: int) -> None:
    async with small(http_port, AcmeConfig(), "blog.lan") as it:
        await it.settings.change(it.admin, it.app, {"automatic": "on"})
        await it.look()
        seen = {(await it.newest()).id}
        for _ in range(6):
            it.clock.ahead += (await it.next_look() + 0.01) * DAY
            await it.look()
            seen.add((await it.newest()).id)
            assert len(await it.certificates.of(it.app)) == 1
            assert await it.serving.is_served(await it.newest(), "blog.lan")
        assert len(seen) == 7 and it.clock.ahead == pytest.approx(360 * DAY, rel=0.01)
        it.clock.ahead = 0  # it was wrong, and is put right
        await it.look()
        newest = await it.newest()
        assert newest.id not in seen and await it.serving.is_served(newest, "blog.lan")


async def test_an_imported_one_is_told_of_too_and_acme_takes_over_when_it_has_expired(
    town: tuple[NameServer, FaultyProxy], http_port: int
) -> None:
    host, (_, proxy) = f"mine.{ZONE}", town
    proxy.reset()
    async with small(http_port, config(proxy), host) as it:
        root = Authority.new()
        bundle = pem.checked(pem.read("".join(root.leaf([host], days=30, age=1)) + root.pem), [host], time.time())
        mine = await it.certificates.add("me", it.app, Source.IMPORTED, bundle)
        await it.look()
        assert (await it.serving.of(it.app)).chosen[host] == mine and await it.serving.is_served(mine, host)
        it.clock.ahead = 26 * DAY
        await it.survey()
        assert [alarm["certificate"] for alarm in await it.events("certificate.expiring")] == [mine.id]
        it.clock.ahead = 29.5 * DAY
        await it.serving.sync()
        chosen = (await it.serving.of(it.app)).chosen[host]
        assert chosen.source is Source.ACME and await it.serving.is_served(chosen, host)
        it.clock.ahead = 59.5 * DAY
        await it.survey()
        assert mine.id not in {each.id for each in await it.certificates.of(it.app)}


async def test_an_authority_that_wants_an_external_account(
    town: tuple[NameServer, FaultyProxy], http_port: int, tmp_path: Path
) -> None:
    host, pebble = f"eab.{ZONE}", Pebble(tmp_path, http_port, town[0].port, eab=True)
    proxy = FaultyProxy(pebble)
    kid, key = pebble.eab
    (tmp_path / "eab").write_text(f"{key}\n")
    try:
        async with small(http_port, config(proxy), host) as it:
            with pytest.raises(CertificateError, match="externalAccountRequired"):
                await it.issuing.look(it.app, Progress(), impatient=True)
        async with small(http_port, config(proxy, eab_kid=kid, eab_key_file=str(tmp_path / "eab")), host) as it:
            await it.look()
            assert await it.serving.is_served(await it.newest(), host)
            accounts = await it.database.fetch("SELECT * FROM authority_keys")
            assert len(accounts) == 1 and b"PRIVATE" not in bytes(accounts[0]["private_key"])
            proxy.seen.clear()
            with pytest.raises(Conflict, match="less than 10 minutes ago"):
                await it.issuing.renew(it.app, Progress())
            assert proxy.seen == []
            it.clock.ahead = 3600
            await it.issuing.renew(it.app, Progress())
            assert (await it.database.fetch("SELECT uri FROM authority_keys"))[0]["uri"] == accounts[0]["uri"]
    finally:
        proxy.close()
        pebble.stop()


def hook(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def test_records_set_by_a_program(town: tuple[NameServer, FaultyProxy], http_port: int, tmp_path: Path) -> None:
    names, proxy = town
    proxy.reset()
    host = f"hooked.sub.{ZONE}"
    update = (
        f'echo "$@" >> {tmp_path}/calls\nprintf "server 127.0.0.1 {names.port}\\nzone {ZONE}.\\n'
        f'key hmac-sha256:paasd:{names.key_file.read_text()}\\nupdate %s\\nsend\\n" '
        '"$([ "$1" = add ] && echo "add $2. 1 TXT $3" || echo "del $2. TXT $3")" | knsupdate -v'
    )
    acme = config(proxy, dns="hook", dns_hook=str(hook(tmp_path / "hook", update)), dns_wait=0.0)
    async with small(http_port, acme, host) as it:
        await it.settings.change(it.admin, it.app, {"wildcard": "on"})
        await it.look()
        assert await it.troubles.of(it.app) == {}
        assert (await it.newest()).names == (f"*.sub.{ZONE}",)
        calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
        assert [call[:2] for call in calls] == [[verb, f"_acme-challenge.sub.{ZONE}"] for verb in ("add", "remove")]
        assert names.ask("_acme-challenge.sub", "TXT") == b""


@pytest.mark.parametrize(
    ("text", "said"), [("echo '\033[31mno' >&2; exit 3", "status 3"), ("sleep 60", "longer than 0.5 s")]
)
async def test_a_program_that_fails_or_hangs(tmp_path: Path, text: str, said: str) -> None:
    acme = AcmeConfig(dns="hook", dns_hook=str(hook(tmp_path / "hook", text)), dns_hook_timeout=0.5)
    with pytest.raises(CertificateError, match=said) as caught:
        await Hook(acme).add("_acme-challenge.x.test", "v; touch /tmp/never")
    assert "\033" not in caught.value.detail
    for path in ("hook", "/nowhere/hook"):
        with pytest.raises(CertificateError):
            await Hook(AcmeConfig(dns="hook", dns_hook=path)).add("x", "y")


async def test_a_forgotten_account_is_made_again(
    town: tuple[NameServer, FaultyProxy], http_port: int, tmp_path: Path
) -> None:
    """The authority lost its database, so another one answers at the same place."""
    host, (names, proxy) = f"again.{ZONE}", town
    proxy.reset()
    first, other = proxy.pebble, Pebble(tmp_path, http_port, names.port)
    try:
        async with small(http_port, config(proxy), host) as it:
            await it.look()
            before = await it.newest()
            proxy.pebble = other
            it.clock.ahead = 3600
            await it.issuing.renew(it.app, Progress())
            after = await it.newest()
            assert after.leaf.issuer != before.leaf.issuer and await it.serving.is_served(after, host)
    finally:
        proxy.pebble = first
        other.stop()
