"""The live instances of apps with their checks, and what is remembered of each check."""

from __future__ import annotations

import logging
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paasd.apps import Apps
from paasd.check_grammar import CheckType
from paasd.checks import Check, checks_of, merged
from paasd.config import RunConfig
from paasd.database import Database, Derived
from paasd.errors import PaasdError
from paasd.models import App
from paasd.release import Releases
from paasd.route.domains import Domains
from paasd.run.instances import InstanceRow, Instances
from paasd.run.probe import Answer

_log = logging.getLogger(__name__)

LASTING = (CheckType.LIVENESS, CheckType.READINESS)
LEAST_WAIT = 1.0
_KEPT = 60
"""What was seen last of each check."""


@dataclass(frozen=True)
class Sample:
    at: float
    answer: Answer


@dataclass(frozen=True)
class Subject:
    """A live instance with its checks."""

    app: App
    row: InstanceRow
    checks: tuple[Check, ...]
    host: str

    def of(self, *kinds: CheckType) -> list[Check]:
        return [check for check in self.checks if check.type in kinds]


@dataclass
class Watched:
    """One check of one live instance."""

    subject: Subject
    check: Check
    due: float
    failures: int = 0
    successes: int = 0
    """Both in a row."""
    failing: bool = False
    asking: bool = False
    following: bool = False
    """What its failure sets off is under way; a restart waits for that."""
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def note(self, answer: Answer, *, counts: bool = True) -> bool:
        """True when it began or ceased to fail. A failure that does not count is only remembered."""
        self.samples.append(Sample(time.time(), answer))
        if not answer.ok and not counts:
            return False
        self.failures = 0 if answer.ok else self.failures + 1
        self.successes = self.successes + 1 if answer.ok else 0
        before = self.failing
        self.failing = self.successes < self.check.successes if before else self.failures >= self.check.attempts
        return self.failing != before

    @property
    def state(self) -> str:
        """In words."""
        if self.failing:
            enough = f", {self.successes} of {self.check.successes} successes seen" if self.successes else ""
            return f"failing{enough}"
        return f"{self.failures} of {self.check.attempts} attempts failed" if self.failures else "passing"

    def begin_anew(self) -> None:
        self.failures, self.successes, self.failing = 0, 0, False
        self.due = time.monotonic() + self.check.initial_delay + min(self.check.wait, 5.0)


class Subjects:
    def __init__(
        self,
        config: RunConfig,
        database: Database,
        apps: Apps,
        releases: Releases,
        instances: Instances,
        domains: Domains,
    ) -> None:
        self._config = config
        self._apps = apps
        self._releases = releases
        self._instances = instances
        self._domains = domains
        self._released: dict[str, tuple[Mapping[str, Any], int]] = {}
        """Checks and port of the releases that are live, by id."""
        self._all: Derived[list[Subject]] = Derived(database)

    async def all(self) -> list[Subject]:
        """Of the whole box; those that are not checked for good are not told their host. The same list as before when
        nothing was committed since."""
        return await self._all.get(self._look_at_all)

    async def _look_at_all(self) -> list[Subject]:
        found = await self._of(await self._apps.all(), lambda subject: bool(subject.of(*LASTING)))
        used = {subject.row.release_id for subject in found}
        self._released = {release_id: known for release_id, known in self._released.items() if release_id in used}
        return found

    async def of(self, app: App) -> list[Subject]:
        return await self._of([app], lambda subject: True)

    async def _of(self, apps: Sequence[App], needs_host: Callable[[Subject], bool]) -> list[Subject]:
        said = await self._apps.all_checks()
        rows: dict[str, list[InstanceRow]] = {}
        for row in await self._instances.all():
            if row.state == "live" and not row.asleep:
                rows.setdefault(row.app_id, []).append(row)
        found: list[Subject] = []
        for app in apps:
            if app.stopped or app.id not in rows:
                continue
            try:
                subjects = [await self._subject(app, row, said.get(app.id, {})) for row in rows[app.id]]
                host = await self._domains.main(app) if any(map(needs_host, subjects)) else ""
            except PaasdError as error:  # what is wrong with one app must not be everybody's
                _log.warning("%s is not checked: %s", app.name, error.detail)
            else:
                found += [replace(subject, host=host) for subject in subjects]
        return found

    async def _subject(self, app: App, row: InstanceRow, said: Mapping[str, Any]) -> Subject:
        in_release, port = await self._of_release(app, row.release_id)
        listed = merged(in_release, said).get(row.process_type, [])
        checks = (check for kind in CheckType for check in checks_of(listed, kind, row.process_type, port))
        return Subject(app, row, tuple(checks), "")

    async def _of_release(self, app: App, release_id: str) -> tuple[Mapping[str, Any], int]:
        if (known := self._released.get(release_id)) is None:
            release = await self._releases.get(app, release_id)
            known = self._released[release_id] = release.checks, release.port or self._config.port
        return known


def new(subject: Subject, check: Check, first: bool) -> Watched:
    """Spread, so that not all come at once, but those of one instance together, since they may ask the same; after a
    start of the daemon the instance has run for long."""
    share = zlib.crc32(subject.row.name.encode()) / 2**32
    delay = share * max(LEAST_WAIT, check.wait) + (0.0 if first else check.initial_delay)
    return Watched(subject, check, time.monotonic() + delay)


def order(check: Check) -> int:
    return list(CheckType).index(check.type)


def facts(check: Check) -> dict[str, Any]:
    return {"type": str(check.type), "check": check.name or check.what, "warn": check.warn}


def seen(answer: Answer) -> dict[str, Any]:
    return {"seen": answer.seen, "seconds": round(answer.seconds, 4)}


def shape(check: Check, watched: Watched | None) -> dict[str, Any]:
    samples: Iterable[Sample] = watched.samples if watched else ()
    listed = [{"at": sample.at, "ok": sample.answer.ok, **seen(sample.answer)} for sample in samples]
    state = "startup only" if check.type is CheckType.STARTUP else "not asked yet"
    if watched and listed:
        state = watched.state
    return {
        **facts(check),
        "every": check.wait,
        "state": state,
        "last": listed[-1] if listed else None,
        "history": listed,
    }
