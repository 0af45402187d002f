"""OCSP from the responder to the client: weeks in seconds with a clock of our own, and a whole box."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paasd.apps import Apps
from paasd.config import HttpConfig
from paasd.database import Database
from paasd.errors import DiskFull
from paasd.events import Events
from paasd.identity.users import Users
from paasd.jobs.table import Jobs
from paasd.models import Actor, App
from paasd.route import pem, stapling
from paasd.route.certificates import Certificates, Source, StoredCertificate
from paasd.route.domains import Domains
from paasd.route.edge import Edge
from paasd.route.serving import Serving
from paasd.route.stapling import StapleState, Stapling
from paasd.secrets import Vault
from paasd.tls_settings import TlsSettings
from tests.box import Box, eventually
from tests.clock import Clock
from tests.nginx import restart_alone
from tests.ocsp import MUST_STAPLE, REVOKED, UNKNOWN, Responder, answer, named, staple_shown
from tests.ports import free_port
from tests.tls import Authority

TEMPLATES = Path(__file__).parents[2] / "nginx"
HOUR = 3600.0
DAY = 24 * HOUR
HOST = "www.stapled.test"


@pytest.fixture(scope="module")
def middle() -> Authority:
    return Authority.new("Middle", Authority.new())


@pytest.fixture
def responder() -> Iterator[Responder]:
    found = Responder()
    yield found
    found.close()


@dataclass
class Small:
    """What staples, without a box around it, and one certificate that names the responder."""

    database: Database
    admin: Actor
    app: App
    clock: Clock
    certificates: Certificates
    serving: Serving
    edge: Edge
    http: HttpConfig
    responder: Responder
    middle: Authority
    make: Callable[[], Stapling]
    stapling: Stapling
    certificate: StoredCertificate

    @property
    def shown(self) -> bool:
        return staple_shown(self.http.https_port, HOST)

    async def state(self) -> StapleState:
        return await self.stapling.of(self.certificate)

    def answers(self, *more: Any, **options: Any) -> None:
        self.responder.says(answer(self.certificate.leaf, self.middle, *more, at=self.clock(), **options))

    async def events(self, type: str) -> list[dict[str, Any]]:
        found = await Events(self.database).list(self.admin.organization_id, limit=200)
        return [dict(event.data) for event in found if event.type == type]


@pytest.fixture
async def it(middle: Authority, responder: Responder) -> AsyncIterator[Small]:
    with tempfile.TemporaryDirectory(prefix="pts", dir="/tmp") as name:
        root, clock = Path(name), Clock()
        http = HttpConfig(address="127.0.0.1", port=free_port(), https_port=free_port(), ocsp_to="127.0.0.0/8")
        database = Database(root / "state.db")
        await database.open()
        admin, apps = await Users(database).bootstrap(), Apps(database)
        certificates = Certificates(database, Vault(os.urandom(32)), clock)
        edge, names = Edge(root / "edge", TEMPLATES, http), Domains(database, http)
        serving = Serving(http, apps, names, certificates, TlsSettings(database), edge.tls, clock)

        def make() -> Stapling:
            jobs = Jobs(database, clock)
            return Stapling(http, "10.9.0.0/16", database, apps, jobs, certificates, serving, edge.tls, clock)

        try:
            await edge.start()
            app = await apps.create(admin, "blog")
            await names.change(admin, app, add=[HOST])
            await edge.set_site(await names.site(app))
            bundle = pem.read("".join(middle.leaf([HOST], more=[named(responder.url)])))
            certificate = await certificates.add("me", app, Source.IMPORTED, bundle)
            await serving.sync()
            yield Small(
                database, admin, app, clock, certificates, serving, edge, http, responder, middle, make, make(),
                certificate,
            )  # fmt: skip
        finally:
            await edge.stop()
            await database.close()


async def test_asked_at_once_and_again_at_half_of_its_time(it: Small) -> None:
    assert "has not been asked" in (await it.state()).problem and not it.shown
    it.answers(age=0, lasts=2 * HOUR)
    assert await it.stapling.look() == pytest.approx(HOUR, abs=10)
    assert it.shown and it.responder.asked == [it.certificate.leaf.serial_number]
    state = await it.state()
    assert (state.problem, state.revoked_at) == ("", None)
    assert state.until == pytest.approx(it.clock() + 2 * HOUR, abs=10)
    assert state.ask_at == pytest.approx(it.clock() + HOUR, abs=10)
    it.clock.ahead = HOUR - 60
    assert await it.stapling.look() == pytest.approx(60, abs=10) and len(it.responder.asked) == 1
    it.clock.ahead = HOUR + 60
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert len(it.responder.asked) == 2 and it.shown
    assert (await it.state()).until == pytest.approx(it.clock() + 2 * HOUR, abs=10)


async def test_an_answer_that_holds_for_a_year_is_asked_for_within_days(it: Small) -> None:
    it.answers(age=0, lasts=365 * DAY)
    assert await it.stapling.look() == pytest.approx(4 * DAY, abs=60)


async def test_a_responder_that_repeats_itself_is_not_asked_all_the_time(it: Small) -> None:
    it.answers(age=6 * DAY, lasts=DAY)
    assert await it.stapling.look() == pytest.approx(HOUR, abs=10), "half of the time was over long ago"
    await it.stapling.look()
    assert len(it.responder.asked) == 1
    it.answers(age=1, lasts=8)
    assert await it.make().look() == pytest.approx(60, abs=5)


async def test_a_new_daemon_goes_by_the_file_and_asks_where_it_is_damaged(it: Small) -> None:
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert await it.make().look() == pytest.approx(HOUR, abs=10) and len(it.responder.asked) == 1
    (path,) = (it.edge._control.path.parent.parent / "tls").glob("*.ocsp")
    path.write_text(path.read_text()[:-9])
    await it.make().look()
    assert len(it.responder.asked) == 2 and it.shown
    other = it.middle.leaf([HOST])[1]
    bad = answer(pem.read_chain(other)[0], it.middle)
    staple = await it.edge.tls.staple(it.certificate.id)
    assert staple is not None
    await it.edge.tls.put_staple(it.certificate.id, stapling.Staple(staple.until, bad))
    it.responder.says(b"", status=500)
    await it.make().look()
    assert len(it.responder.asked) == 3 and not it.shown, "an answer about another certificate stays"


async def test_a_lost_answer_is_asked_for_again_but_not_at_once(it: Small) -> None:
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    await it.edge.tls.remove_staple(it.certificate.id)
    assert await it.stapling.look() == pytest.approx(60, abs=10) and len(it.responder.asked) == 1
    it.clock.ahead = 70
    await it.stapling.look()
    assert len(it.responder.asked) == 2 and it.shown


async def test_failures_change_nothing_and_are_tried_ever_more_rarely(it: Small) -> None:
    it.answers(age=0, lasts=40 * HOUR)
    await it.stapling.look()
    it.clock.ahead = 21 * HOUR
    stranger = Authority.new("Middle")
    leaf = it.certificate.leaf
    bad = [
        (b"garbage", "no proper answer"),
        (answer(leaf, it.middle, at=it.clock(), age=DAY, lasts=-HOUR), "out of date"),
        (answer(leaf, stranger, at=it.clock()), "not named in it"),
        (answer(leaf, it.middle, UNKNOWN, at=it.clock()), "does not know"),
        (answer(leaf, it.middle, at=it.clock(), age=30 * HOUR), "older than the one before"),
    ]
    waits = []
    for body, said in bad:
        it.responder.says(body)
        waits.append(await it.stapling.look())
        state = await it.state()
        assert said in state.problem and state.until and it.shown
        asked = len(it.responder.asked)
        await it.stapling.look()
        assert len(it.responder.asked) == asked, "it was asked before its time"
        it.clock.ahead += waits[-1] + 1
    assert waits == pytest.approx([60, 120, 240, 480, 960], abs=5)
    it.responder.close()
    for _ in range(4):
        it.clock.ahead += (wait := await it.stapling.look()) + 1
    assert wait == pytest.approx(HOUR, abs=5) and "does not answer" in (await it.state()).problem
    assert it.shown and await it.events("certificate.found-revoked") == []


async def test_a_revocation_is_told_once_and_the_staple_goes(it: Small) -> None:
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert it.shown
    it.clock.ahead = HOUR + 60
    it.answers(REVOKED, age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert not it.shown, "clients are told that it is good"
    state = await it.state()
    assert state.until is None and "it was revoked" in state.problem
    assert state.revoked_at == pytest.approx(it.clock() - DAY, abs=10)
    (event,) = await it.events("certificate.found-revoked")
    assert event["certificate"] == it.certificate.id and event["responder"] == it.responder.url
    it.clock.ahead = 2 * HOUR + 120
    it.answers(REVOKED, age=0, lasts=2 * HOUR)
    it.stapling = it.make()
    await it.stapling.look()
    assert len(it.responder.asked) == 3 and len(await it.events("certificate.found-revoked")) == 1
    it.clock.ahead = 4 * HOUR
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert it.shown and (await it.state()).revoked_at is None, "it was only held"


async def test_a_revocation_is_not_forgotten_while_the_responder_is_silent(it: Small) -> None:
    it.answers(REVOKED, age=0, lasts=2 * HOUR)
    await it.stapling.look()
    revoked_at = (await it.state()).revoked_at
    assert revoked_at
    it.responder.says(b"", status=503)
    it.clock.ahead = 3 * HOUR
    for asking in (it.stapling, it.make()):
        await asking.look()
        state = await asking.of(it.certificate)
        assert state.revoked_at == revoked_at and "it was revoked" in state.problem
        assert await asking.revoked([it.certificate]) == {it.certificate.id}
    await it.serving.sync()
    assert not it.shown
    it.clock.ahead = 5 * HOUR
    it.answers(REVOKED, age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert len(await it.events("certificate.found-revoked")) == 1
    it.clock.ahead = 8 * HOUR
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    assert it.shown and await it.stapling.revoked([it.certificate]) == set()


async def test_a_revocation_that_could_not_be_told_is_told_later(it: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    it.answers(age=0, lasts=2 * HOUR)
    await it.stapling.look()
    it.clock.ahead = HOUR + 60
    it.answers(REVOKED, age=0, lasts=2 * HOUR)

    async def full(*values: object) -> None:
        raise DiskFull("state.db cannot grow")

    with monkeypatch.context() as patch:
        patch.setattr(it.certificates, "found_revoked", full)
        await it.stapling.look()
    assert not it.shown, "clients are told that it is good"
    it.clock.ahead += 120
    await it.stapling.look()
    assert len(await it.events("certificate.found-revoked")) == 1 and (await it.state()).revoked_at


async def other(it: Small, name: str, url: str) -> StoredCertificate:
    """An app with another certificate."""
    app = await Apps(it.database).create(it.admin, name)
    await Domains(it.database, it.http).change(it.admin, app, add=[f"{name}.test"])
    bundle = pem.read("".join(it.middle.leaf([f"{name}.test"], more=[named(url)])))
    return await it.certificates.add("me", app, Source.IMPORTED, bundle)


async def test_who_is_due_longest_is_asked_first(it: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all answers fail, and the others come first by the names of their apps."""
    monkeypatch.setattr("paasd.route.stapling._AT_ONCE", 1)
    it.responder.says(b"", status=503)
    await it.stapling.look()
    it.clock.ahead = 30
    early = [await other(it, name, it.responder.url) for name in ("a", "b")]
    await it.stapling.look()
    serials = [each.leaf.serial_number for each in (it.certificate, *early)]
    assert it.responder.asked == serials
    it.clock.ahead = HOUR
    await it.stapling.look()
    assert it.responder.asked == serials * 2


async def test_a_look_comes_to_an_end_and_goes_on_soon(it: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    it.answers(age=0, lasts=2 * HOUR)
    with monkeypatch.context() as patch:
        patch.setattr("paasd.route.stapling._LONGEST", 0.0)
        assert await it.stapling.look() == 1.0 and not it.responder.asked
    await it.stapling.look()
    assert it.shown


async def test_a_slow_responder_of_many_certificates_leaves_room_for_others(
    it: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paasd.route.ocsp_responder._TIMEOUT", 1.0)
    it.answers(age=0, lasts=2 * HOUR)
    slow = Responder()
    slow.says(b"", delay=30)
    try:
        for number in range(stapling._AT_ONCE + 1):
            await other(it, f"a{number}", slow.url)
        look = asyncio.create_task(it.stapling.look())
        while not it.responder.asked:
            assert not look.done()
            await asyncio.sleep(0.01)
        assert len(slow.asked) <= stapling._AT_ONE
        await look
    finally:
        slow.close()


async def test_one_slow_responder_holds_up_no_other(it: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paasd.route.ocsp_responder._TIMEOUT", 1.0)
    it.answers(age=0, lasts=2 * HOUR)
    slow = Responder()
    slow.says(b"", delay=30)
    try:
        app = await Apps(it.database).create(it.admin, "slow")
        await Domains(it.database, it.http).change(it.admin, app, add=["slow.test"])
        bundle = pem.read("".join(it.middle.leaf(["slow.test"], more=[named(slow.url)])))
        other = await it.certificates.add("me", app, Source.IMPORTED, bundle)
        await it.stapling.look()
        assert it.shown and "within 1 s" in (await it.stapling.of(other)).problem
    finally:
        slow.close()


async def test_what_serves_no_name_is_not_asked_about(it: Small) -> None:
    it.answers(age=0)
    bundle = pem.read("".join(it.middle.leaf([HOST], days=300, more=[named(it.responder.url)])))
    newer = await it.certificates.add("me", it.app, Source.IMPORTED, bundle)
    await it.serving.sync()
    await it.stapling.look()
    assert it.responder.asked == [newer.leaf.serial_number]
    assert "only what serves a name" in (await it.state()).problem


def test_on_a_whole_box(new_box: object, middle: Authority, responder: Responder) -> None:
    box: Box = new_box("[http]\nocsp_to = '127.0.0.0/8'\n").start()  # type: ignore[operator]
    box.ssh("apps:create", "shop")
    box.ssh("domains:add", "shop", HOST)
    key, chain = middle.leaf([HOST], more=[named(responder.url), MUST_STAPLE])
    leaf = pem.read_chain(chain)[0]
    assert middle.issuer is not None
    responder.says(b"", status=503)
    assert box.ssh("certs:import", "shop", stdin=key + chain + middle.issuer.pem).status == 0
    eventually(lambda: bool(responder.asked))
    eventually(lambda: "503" in (box.json("certs:info", "shop")["staple_problem"] or ""))
    found = box.json("certs:info", "shop")
    assert found["must_staple"] and "Must-Staple" in found["staple_problem"] and not found["staple_until"]
    assert not staple_shown(box.https_port, HOST)
    responder.says(answer(leaf, middle))
    box.stop()  # what failed is forgotten with the daemon
    box.start()
    look_now(box)
    eventually(lambda: staple_shown(box.https_port, HOST))
    found = box.json("certs:info", "shop")
    assert found["staple_until"] and found["staple_problem"] is None
    assert "staple until:" in box.ssh("certs:info", "shop").out
    box.stop()
    restart_alone(box)
    assert staple_shown(box.https_port, HOST), "Nginx alone does not"
    box.start()
    responder.says(answer(leaf, middle, REVOKED))
    path = next((box.data / "edge" / "tls").glob("*.ocsp"))
    path.unlink()
    look_now(box)
    eventually(lambda: bool(box.json("certs:info", "shop")["revoked_at"]))
    assert not staple_shown(box.https_port, HOST)
    assert "certificate.found-revoked" in box.ssh("events").out
    said = box.local("doctor").all
    assert f"of {HOST} was revoked" in said, said
    assert "has revoked the certificate" in box.ssh("certs:report", "shop").out


def test_the_box_itself_is_never_asked(box: Box, middle: Authority, responder: Responder) -> None:
    responder.says(b"")
    box.ssh("apps:create", "spy")
    try:
        box.ssh("domains:add", "spy", "spy.test")
        assert middle.issuer is not None
        text = "".join(middle.leaf(["spy.test"], more=[named(responder.url)])) + middle.issuer.pem
        assert box.ssh("certs:import", "spy", stdin=text).status == 0
        eventually(lambda: "no public address" in (box.json("certs:info", "spy")["staple_problem"] or ""))
        assert responder.asked == []
    finally:
        box.ssh("apps:destroy", "spy", "--force")


def look_now(box: Box) -> None:
    def asked() -> bool:
        jobs = [job for job in box.json("jobs") if job["type"] == "certificate.staple" and job["status"] == "queued"]
        return len(jobs) == 1 and box.ssh("jobs:retry", str(jobs[0]["id"])).status == 0

    eventually(asked)
