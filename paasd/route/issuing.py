"""Gets certificates for apps' host names, and new ones in time: from the ACME authority, for local names from the box's
own.

A job for each app looks at what is missing and adds its own successor for when there is next something to do. Whatever
changes names or settings makes it look at once. Certificates there are serve until new ones are seen to be served."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from paasd.apps import Apps
from paasd.config import AcmeConfig
from paasd.database import Database, now
from paasd.errors import CertificateError, Conflict, InvalidInput, PaasdError
from paasd.events import Subscriber
from paasd.jobs.job import Job, JobType, Queue
from paasd.jobs.table import Jobs
from paasd.jobs.workers import Handler
from paasd.models import Actor, App, Event
from paasd.progress import Progress
from paasd.route import pem
from paasd.route.acme import rules
from paasd.route.acme.authority import Authority
from paasd.route.acme.challenges import HTTP
from paasd.route.aging import Aging
from paasd.route.certificates import Certificates, Source, StoredCertificate
from paasd.route.domains import Domains
from paasd.route.host_names import is_wildcard
from paasd.route.local_ca import LocalAuthority, is_local
from paasd.route.serving import Serving
from paasd.route.troubles import Troubles
from paasd.tls_settings import TlsChoices, TlsSettings

_log = logging.getLogger(__name__)

ISSUE = JobType("certificate.issue", Queue.NOTIFICATION, timeout=900, max_attempts=1000)
SURVEY = JobType("certificate.survey", Queue.NOTIFICATION, timeout=300)
_SURVEY_EVERY = 3600.0
_EVENTS_OF_ALL = frozenset({"global-domain.added", "global-domain.removed"})
_EVENTS = _EVENTS_OF_ALL | {
    "domain.added",
    "domain.removed",
    "redirect.added",
    "redirect.removed",
    "app.created",
    "app.renamed",
    "app.destroyed",
    "tls.set",
}
_FREQUENT = frozenset({"deployment.completed"})
"""Of no interest; they are taken so that no old events are kept for a subscriber that nothing happens to."""
_ROUNDS = 3
"""Orders in a row for the same names, without those that were to blame for the last one."""
_NOT_ANEW = 600.0
"""Seconds for which a new certificate is not replaced because somebody asks."""
_SOONEST, _PAUSE = 1.0, 2.0
_SERVED_WITHIN = 10.0
_ACTOR = "paasd"


@dataclass(frozen=True)
class Wanted:
    """Names of an app by who is to give certificates for them."""

    names: Mapping[Source, tuple[str, ...]]
    unserved: Mapping[str, str] = field(default_factory=dict)
    """Public names that nobody gives one for, and why."""


class Issuing:
    def __init__(
        self,
        database: Database,
        config: AcmeConfig,
        apps: Apps,
        domains: Domains,
        jobs: Jobs,
        certificates: Certificates,
        troubles: Troubles,
        settings: TlsSettings,
        serving: Serving,
        authority: Authority,
        local: LocalAuthority,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._config = config
        self._apps = apps
        self._domains = domains
        self._jobs = jobs
        self._certificates = certificates
        self._troubles = troubles
        self._settings = settings
        self._serving = serving
        self._authority = authority
        self._local = local
        self._clock = clock
        self._aging = Aging(certificates, troubles, serving, authority, clock)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def handlers(self) -> list[Handler]:
        return [Handler(ISSUE, self._issue), Handler(SURVEY, self._survey, every=_SURVEY_EVERY)]

    def subscribers(self) -> list[Subscriber]:
        return [Subscriber("certificates", self._noticed, _EVENTS | _FREQUENT)]

    async def wanted(self, app: App, settings: TlsChoices | None = None) -> Wanted:
        """What an app should have certificates for. Local names and previews only where somebody asked for them; other
        public names also where only the box says so, by `acme.email`."""
        settings = settings or await self._settings.of(app)
        asked = settings.automatic or (settings.automatic is None and app.environment != "preview")
        hosts = (await self._domains.names(app)).secured if asked else []
        public = [host for host in hosts if not is_local(host)]
        local = [host for host in hosts if is_local(host)] if settings.automatic else []
        if not self._config.email:
            unserved = dict.fromkeys(public, "acme.email is not set in paasd.toml") if settings.automatic else {}
            return Wanted({Source.LOCAL: tuple(local)}, unserved)
        unserved = {host: why for host in public if (why := self._hindrance(host, settings))}
        public = [host for host in public if host not in unserved]
        acme = rules.wildcards(public) if settings.wildcard else public
        return Wanted({Source.ACME: tuple(acme), Source.LOCAL: tuple(local)}, unserved)

    def _hindrance(self, host: str, settings: TlsChoices) -> str:
        """Why no authority can give a certificate for a name; empty when one can."""
        if not is_wildcard(host):
            return ""
        if not self._config.dns:
            return "a wildcard needs DNS-01, and acme.dns is not set in paasd.toml"
        return "a wildcard needs DNS-01, and the app wants http-01 (tls:set)" if settings.challenge == HTTP else ""

    async def enable(self, actor: Actor, app: App, progress: Progress) -> None:
        """Get certificates by itself from now on, and now. Raises CertificateError, or Conflict when it failed a moment
        ago; it is tried again all the same."""
        settings = replace(await self._settings.of(app), automatic=True)
        wanted = await self.wanted(app, settings)
        if wanted.unserved and not any(wanted.names.values()):
            raise InvalidInput(
                "; ".join(f"no certificate for {name}: {why}" for name, why in wanted.unserved.items()),
                hint="Set acme.email in paasd.toml (you agree to the authority's terms), and acme.dns for wildcards, or"
                " import: certs:import APP",
            )
        await self._settings.change(actor, app, {"automatic": "on"})
        for name, why in wanted.unserved.items():
            progress.warn(f"{name} gets none: {why}")
        await self.look(app, progress, impatient=True)

    async def renew(self, app: App, progress: Progress) -> None:
        """Get new certificates for all names, whatever there is. Raises CertificateError, Conflict."""
        if not any((await self.wanted(app)).names.values()):
            raise Conflict(
                f"{app.name} gets no certificates by itself", hint=f"Switch that on with: certs:enable {app.name}"
            )
        issued = max((e.created_at for e in await self._certificates.of(app) if e.source is Source.ACME), default=0.0)
        if 0 <= self._clock() - issued < _NOT_ANEW:
            raise Conflict(
                f"the certificate of {app.name} was issued at {pem.day(issued)}, less than {_NOT_ANEW / 60:.0f} minutes"
                " ago, and authorities give few for the same names",
                hint=f"Wait until {pem.day(issued + _NOT_ANEW)}; what names lack comes with: certs:enable {app.name}",
            )
        await self.look(app, progress, impatient=True, anew=True)

    async def revoke(self, actor: Actor, app: App, certificate: StoredCertificate) -> None:
        """Have the authority declare it void, and serve it no more."""
        if certificate.source is not Source.ACME or certificate.directory != self._authority.directory:
            raise InvalidInput(
                f"the certificate {certificate.id} is not from {self._authority.directory}",
                hint=f"Only forget it: certs:remove {app.name} {certificate.id}",
            )
        await self._authority.revoke(certificate.chain)
        await self._certificates.remove(actor.name, app, certificate, "certificate.revoked")
        await self._serving.sync()
        await self._look_again(app, _SOONEST)

    async def look(self, app: App, progress: Progress, *, impatient: bool = False, anew: bool = False) -> None:
        """Get what is missing, and plan the next look. `impatient`: what failed before is tried at once, and failures
        are raised. `anew`: as if there were nothing yet."""
        async with self._locks.setdefault(app.id, asyncio.Lock()):
            held = await self._troubles.release(app) if impatient else {}
            try:
                got = await self._get_missing(app, progress, impatient=impatient, anew=anew)
            finally:
                await self._plan_next(app)
            if held and not got:
                raise _too_soon(held)

    async def _get_missing(self, app: App, progress: Progress, *, impatient: bool, anew: bool) -> bool:
        """True if there was anything to get."""
        settings = await self._settings.of(app)
        wanted = await self.wanted(app, settings)
        await self._forget_old_troubles(app, wanted)
        failures: list[PaasdError] = []
        tried: set[tuple[str, ...]] = set()
        for source, names in wanted.names.items():
            done: set[str] = set()
            for _ in range(_ROUNDS):
                plan = await self._plan(app, source, names, anew=anew)
                # Not the same again, also where it could not be written down that it failed.
                orders = [order for order in plan.orders if order not in tried and not done.issuperset(order)]
                if not orders:
                    break
                for order in orders:
                    tried.add(order)
                    try:
                        await self._get(app, source, order, settings, progress)
                        done |= set(order)
                    except PaasdError as error:
                        failures.append(error)
        if failures and impatient:
            raise failures[0]
        return bool(tried)

    async def _get(
        self, app: App, source: Source, names: tuple[str, ...], settings: TlsChoices, progress: Progress
    ) -> None:
        """One certificate, seen to be served. What is to blame if it fails is written down."""
        progress.step(f"Getting a certificate for {', '.join(names)}")
        before = [each for each in await self._certificates.of(app) if each.source is source]
        directory = self._authority.directory if source is Source.ACME else ""
        replaces = " ".join(each.id for each in before)
        try:
            bundle = await self._order(source, names, settings, progress)
            added = await self._certificates.add(_ACTOR, app, source, bundle, directory=directory, replaces=replaces)
        except Exception as error:
            # Whatever it was: without this the authority would be asked again at once, and again.
            await self._blame(app, names, error)
            raise
        await self._troubles.clear(app, names)
        await self._serving.sync()
        progress.detail(f"It is served, and ends on {pem.day(added.ends_at)}")
        await self._drop_replaced(app, added, before)

    async def _blame(self, app: App, names: tuple[str, ...], error: Exception) -> None:
        """Write down why there is no certificate, and for which of the names."""
        known = error if isinstance(error, PaasdError) else PaasdError(f"paasd failed ({type(error).__name__})")
        _log.warning("no certificate for %s: %s", ", ".join(names), known.detail)
        blamed, wait = {}, None
        if isinstance(error, CertificateError):
            blamed, wait = {name: error.names[name] for name in names if name in error.names}, error.wait
        await self._troubles.add(app, blamed or dict.fromkeys(names, known.detail), wait)

    async def _order(
        self, source: Source, names: tuple[str, ...], settings: TlsChoices, progress: Progress
    ) -> pem.Bundle:
        if source is Source.LOCAL:
            return await self._local.issue(names, settings.key_type)
        return await self._authority.order(
            names, key_type=settings.key_type, challenge=settings.challenge, now=self._clock(), progress=progress
        )

    async def _drop_replaced(self, app: App, added: StoredCertificate, before: Sequence[StoredCertificate]) -> None:
        """Once the new one is seen at the edge the ones before go, unless a name has nothing else."""
        chosen = (await self._serving.of(app)).chosen
        hosts = [host for host, each in chosen.items() if each.id == added.id]
        for host in hosts:
            if not await self._is_served(added, host):
                _log.error("%s is not served with its new certificate %s; the old one stays", host, added.id)
                return
        used = {each.id for each in chosen.values()}
        for each in before:
            if each.id not in used:
                await self._certificates.remove(_ACTOR, app, each, "certificate.replaced")
        await self._serving.sync()

    async def _is_served(self, certificate: StoredCertificate, host: str) -> bool:
        deadline = asyncio.get_running_loop().time() + _SERVED_WITHIN
        while not await self._serving.is_served(certificate, host):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True

    async def _plan(self, app: App, source: Source, names: tuple[str, ...], *, anew: bool = False) -> rules.Plan:
        held = [
            rules.Held(each.names, rules.renew_at(each.starts_at, each.ends_at, each.renew_at))
            for each in await self._certificates.of(app)
            if each.source is source and self._aging.is_ours(each) and each.is_valid(self._clock())
        ]
        return rules.plan(names, () if anew else held, await self._troubles.of(app), self._clock())

    async def _plan_next(self, app: App) -> None:
        """The job for the next time there is something to do."""
        wanted = await self.wanted(app)
        times = []
        for source, names in wanted.names.items():
            plan = await self._plan(app, source, names)
            times += [self._clock() + _PAUSE] if plan.orders else []
            times += [plan.next_at] if plan.next_at is not None else []
        if times:
            await self._look_again(app, max(_SOONEST, min(times) - self._clock()))

    async def _look_again(self, app: App, after: float) -> None:
        async with self._database.transaction() as tx:
            await self._jobs.add(
                tx, ISSUE, organization_id=app.organization_id, app_id=app.id, key=app.id, after=after, moves=True
            )

    async def _forget_old_troubles(self, app: App, wanted: Wanted) -> None:
        names = {name for group in wanted.names.values() for name in group}
        if gone := set(await self._troubles.of(app)) - names:
            await self._troubles.clear(app, gone)

    async def _issue(self, job: Job) -> None:
        app = next((app for app in await self._apps.all() if app.id == job.app_id), None)
        if app is not None:
            await self.look(app, Progress())

    async def _noticed(self, events: Sequence[Event]) -> None:
        names = {event.app for event in events if event.type in _EVENTS}
        if not names:
            return
        every = any(event.type in _EVENTS_OF_ALL for event in events)
        for app in await self._apps.all():
            if (every or app.name in names) and (
                any((await self.wanted(app)).names.values()) or await self._troubles.of(app)
            ):
                await self._look_again(app, 0.0)
        await self._serving.sync()

    async def _survey(self, job: Job) -> None:
        """Each hour: tells of certificates that end soon, sees to it that no app is forgotten, also after the clock was
        put right, and then asks the authority when it wants them to be renewed: it may hang."""
        apps = {app.id: app for app in await self._apps.all()}
        for certificate in await self._certificates.all():
            if app := apps.get(certificate.app_id):
                await self._aging.look(app, certificate)
        await self._plan_all(apps.values())
        await self._serving.sync()
        for certificate in await self._certificates.all():
            if not await self._aging.ask(certificate):
                break
        await self._plan_all(apps.values())

    async def _plan_all(self, apps: Iterable[App]) -> None:
        for app in apps:
            if not self._locks.get(app.id):
                await self._plan_next(app)

    async def local_root(self) -> str:
        return await self._local.root()

    async def troubles(self, app: App) -> Mapping[str, rules.Trouble]:
        """By name."""
        return await self._troubles.of(app)


def _too_soon(held: Mapping[str, rules.Trouble]) -> Conflict:
    at = min(trouble.retry_at for trouble in held.values())
    said = "; ".join(f"{name}: {trouble.problem}" for name, trouble in held.items())
    return Conflict(
        f"it failed a moment ago, or the authority asked to wait ({said})", hint=f"It is tried again at {pem.day(at)}."
    )
