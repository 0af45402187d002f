"""Shows clients, with each certificate that names an OCSP responder, what that one says of it: asks in time, checks,
and gives it to the edge. Certificates that name none, as those of Let's Encrypt, cost nothing.

What was answered is in the edge's files; attempts that failed are in memory, and forgotten with the daemon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from paasd.apps import Apps
from paasd.config import HttpConfig
from paasd.database import Database, now
from paasd.errors import CertificateError, InvalidInput, PaasdError
from paasd.events import Subscriber
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler
from paasd.models import App, Event
from paasd.route import ocsp, pem
from paasd.route.certificates import Certificates, StoredCertificate
from paasd.route.edge_staples import Staple
from paasd.route.edge_tls import EdgeTls
from paasd.route.ocsp_responder import OcspResponders
from paasd.route.serving import Serving
from paasd.route.sites import tls_addresses

_log = logging.getLogger(__name__)

STAPLE = JobType("certificate.staple", Queue.NOTIFICATION, timeout=900)
_LOOK_EVERY = 3600.0
_AT_ONCE, _AT_ONE = 8, 2
"""Questions at a time, to all responders and to one: a slow one leaves room for the others."""
_LONGEST = 300.0
"""Seconds in which one look begins questions: what came meanwhile is to have its turn."""
_SOONEST, _FAILED_MOST = 60.0, 3600.0
"""Seconds between two questions about a certificate, also of a responder whose answers hold for seconds; and the most
there are after failures in a row."""
_OFTEN = 4 * 86400.0
"""However long an answer holds: a revocation is to be noticed."""
_EVENTS = frozenset({"certificate.imported", "certificate.issued", "certificate.removed", "domain.added"})
"""After these, other certificates may be in use."""
_FREQUENT = frozenset({"deployment.completed"})
"""Of no interest; they are taken so that no old events are kept for a subscriber that nothing happens to."""


@dataclass(frozen=True)
class StapleState:
    """What is known of a certificate."""

    until: float | None = None
    """Until when an answer is stapled; None for none."""
    revoked_at: float | None = None
    problem: str = ""
    """Why there is none, or no newer one."""
    ask_at: float | None = None


@dataclass(frozen=True)
class _Attempt:
    at: float
    ask_at: float
    failures: int = 0
    problem: str = ""


class Stapling:
    def __init__(
        self,
        http: HttpConfig,
        subnets: str,
        database: Database,
        apps: Apps,
        jobs: Jobs,
        certificates: Certificates,
        serving: Serving,
        edge: EdgeTls,
        clock: Callable[[], float] = now,
    ) -> None:
        self._listens = bool(tls_addresses(http))
        self._responders = OcspResponders(subnets, http.ocsp_to)
        self._database = database
        self._apps = apps
        self._jobs = jobs
        self._certificates = certificates
        self._serving = serving
        self._edge = edge
        self._clock = clock
        self._questions: dict[str, ocsp.Question | None] = {}
        """By id of the certificate: nobody reads a chain twice."""
        self._attempts: dict[str, _Attempt] = {}

    def handlers(self) -> list[Handler]:
        return [Handler(STAPLE, self._run, every=_LOOK_EVERY)]

    def subscribers(self) -> list[Subscriber]:
        return [Subscriber("staples", self._noticed, _EVENTS | _FREQUENT)]

    async def of(self, certificate: StoredCertificate) -> StapleState:
        chain = await asyncio.to_thread(pem.read_chain, certificate.chain)
        if not ocsp.responder_of(chain[0]):
            return StapleState(problem="the certificate names no OCSP responder")
        if (question := ocsp.question(chain)) is None:
            return StapleState(problem="its chain does not have the certificate of its issuer")
        answer = await self._answer(certificate.id, question)
        attempt = self._attempts.get(certificate.id)
        if answer is None and attempt is None:
            return StapleState(problem=f"{question.url} has not been asked; only what serves a name is asked about")
        problem = f"{question.url}: {attempt.problem}" if attempt and attempt.problem else ""
        if answer and answer.revoked_at is not None:
            said = f"it was revoked at {pem.day(answer.revoked_at)}, says {question.url}"
            return StapleState(None, answer.revoked_at, said, self._ask_at(certificate.id, answer))
        return StapleState(answer.until if answer else None, None, problem, self._ask_at(certificate.id, answer))

    async def revoked(self, certificates: Iterable[StoredCertificate]) -> set[str]:
        """Ids of those whose authority has declared them void."""
        staples = {each.id: await self._edge.staple(each.id) for each in certificates}
        return {id for id, staple in staples.items() if staple and staple.revoked}

    async def look(self) -> float:
        """Ask what is due. Returns in how many seconds there is more to do."""
        wanted = await self._wanted() if self._listens else []
        self._attempts = {id: self._attempts[id] for _, each in wanted if (id := each.id) in self._attempts}
        times = {each.id: await self._due_at(each) for _, each in wanted}
        ends = time.monotonic() + _LONGEST
        room, rooms = asyncio.Semaphore(_AT_ONCE), defaultdict[str, asyncio.Semaphore](_room_of_one)

        async def one(app: App, certificate: StoredCertificate) -> None:
            # The responder's own first: who waits for it takes no room from others.
            async with rooms[_host(self._question(certificate))], room:
                if time.monotonic() < ends:
                    times[certificate.id] = await self._look_at(app, certificate)

        due = [(app, each) for app, each in wanted if times[each.id] <= self._clock()]
        # Whom this look does not come to is the first of the next one.
        due.sort(key=lambda each: times[each[1].id])
        await asyncio.gather(*(one(app, certificate) for app, certificate in due))
        return max(1.0, min(times.values(), default=self._clock() + _LOOK_EVERY) - self._clock())

    async def _wanted(self) -> list[tuple[App, StoredCertificate]]:
        """What serves a name and can be asked about."""
        named: dict[str, list[StoredCertificate]] = {}
        everything = await self._certificates.all()
        self._questions = await asyncio.to_thread(_questions, everything, self._questions)
        for certificate in everything:
            if self._questions[certificate.id] and certificate.is_valid(self._clock()):
                named.setdefault(certificate.app_id, []).append(certificate)
        found = []
        for app in await self._apps.all() if named else ():
            if app.id in named:
                chosen = {each.id for each in (await self._serving.of(app)).chosen.values()}
                found += [(app, each) for each in named[app.id] if each.id in chosen]
        return found

    def _question(self, certificate: StoredCertificate) -> ocsp.Question:
        question = self._questions[certificate.id]
        assert question is not None
        return question

    async def _due_at(self, certificate: StoredCertificate) -> float:
        return self._ask_at(certificate.id, await self._answer(certificate.id, self._question(certificate)))

    async def _look_at(self, app: App, certificate: StoredCertificate) -> float:
        """Ask now. Returns when to ask again."""
        question = self._question(certificate)
        before = await self._answer(certificate.id, question)
        try:
            if before is None and await self._edge.staple(certificate.id):
                await self._edge.remove_staple(certificate.id)
            self._attempts[certificate.id] = await self._renew(app, certificate, question, before)
        except (PaasdError, OSError) as error:
            self._failed(certificate, question, error)
        return await self._due_at(certificate)

    async def _renew(
        self, app: App, certificate: StoredCertificate, question: ocsp.Question, before: ocsp.Answer | None
    ) -> _Attempt:
        """Raises PaasdError; then all is as before."""
        der = await self._responders.ask(question.url, question.der())
        answer = await asyncio.to_thread(ocsp.read, der, question, self._clock())
        if before and answer.starts < before.starts:
            raise CertificateError("its answer is older than the one before")
        if answer.revoked_at is not None and (before is None or before.revoked_at is None):
            _log.error("the certificate of %s was revoked, says %s", ", ".join(certificate.names), question.url)
            await self._edge.remove_staple(certificate.id)
            # Before the answer is kept, from which on it counts as told.
            await self._certificates.found_revoked(app, certificate, question.url, answer.revoked_at)
        staple = Staple(int(answer.until), answer.der, answer.revoked_at is not None)
        await self._edge.put_staple(certificate.id, staple)
        # A responder may say the same again for a while.
        pause = max(_SOONEST, min(_FAILED_MOST, (answer.until - self._clock()) / 4))
        return _Attempt(self._clock(), max(_renew_at(answer), self._clock() + pause))

    def _failed(self, certificate: StoredCertificate, question: ocsp.Question, error: PaasdError | OSError) -> None:
        detail = error.detail if isinstance(error, PaasdError) else str(error)
        failures = self._attempts.get(certificate.id, _Attempt(0.0, 0.0)).failures
        _log.warning("%s was asked about the certificate %s: %s", question.url, certificate.id, detail)
        wait = min(_FAILED_MOST, _SOONEST * 2.0 ** min(failures, 20))
        self._attempts[certificate.id] = _Attempt(self._clock(), self._clock() + wait, failures + 1, detail)

    def _ask_at(self, id: str, answer: ocsp.Answer | None) -> float:
        if attempt := self._attempts.get(id):
            lost = answer is None and not attempt.failures  # it is gone from the files, or its time was short
            at = attempt.at + _SOONEST if lost else attempt.ask_at
            # Weeks ahead was written down when the clock was wrong.
            return at if at - self._clock() <= _OFTEN else 0.0
        return _renew_at(answer) if answer else 0.0

    async def _answer(self, id: str, question: ocsp.Question) -> ocsp.Answer | None:
        """What the edge has, if it still says something. That a certificate was revoked holds until its responder says
        otherwise, however long that is silent."""
        staple = await self._edge.staple(id)
        if staple is None:
            return None
        at = min(self._clock(), staple.until - 1.0) if staple.revoked else self._clock()
        try:
            return await asyncio.to_thread(ocsp.read, staple.der, question, at)
        except CertificateError:
            return None

    async def _run(self, job: Job) -> None:
        await self._look_again(await self.look())

    async def _noticed(self, events: Sequence[Event]) -> None:
        if any(event.type in _EVENTS for event in events):
            await self._look_again(0.0, moves=True)

    async def _look_again(self, after: float, *, moves: bool = False) -> None:
        """What was asked for meanwhile stays as it is, unless this one `moves` it."""
        if after < _LOOK_EVERY:
            async with self._database.transaction() as tx:
                await self._jobs.add(tx, STAPLE, key=STAPLE.name, after=after, moves=moves)


def _room_of_one() -> asyncio.Semaphore:
    return asyncio.Semaphore(_AT_ONE)


def _host(question: ocsp.Question) -> str:
    return urlsplit(question.url).netloc.lower()


def _renew_at(answer: ocsp.Answer) -> float:
    return answer.starts + min(_OFTEN, (answer.until - answer.starts) / 2)


def _questions(
    certificates: Sequence[StoredCertificate], known: dict[str, ocsp.Question | None]
) -> dict[str, ocsp.Question | None]:
    return {each.id: known[each.id] if each.id in known else _question(each) for each in certificates}


def _question(certificate: StoredCertificate) -> ocsp.Question | None:
    try:
        return ocsp.question(pem.read_chain(certificate.chain))
    except InvalidInput:
        return None
