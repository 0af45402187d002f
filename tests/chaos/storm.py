"""Deploys and faults at random: what a seed gives is told by `scripts/chaos --minutes N --seed S`.

Three apps on an engine of the storm's own, a prober for each, and one action after the other (pushes, rollbacks,
scaling, config vars, sleep), many of them with a fault: the daemon killed in the middle, a call over one of its
borders that fails or whose answer is lost, the engine stopped or killed. In the end nothing acknowledged may be gone,
nothing may be left over, and no request may have failed but those that came while the engine, which runs the apps,
was down.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.box import Box, Repository, eventually
from tests.chaos.faults import BORDERS
from tests.engine import Engine
from tests.images import TEST_IMAGE
from tests.prober import Prober

_PROCFILE = "web: exec httpd -f -p 0.0.0.0:$PORT -h /www\nworker: exec sleep 3600\n"
_DOCKERFILE = f"FROM {TEST_IMAGE}\nCOPY index.html /www/\n"
_MOST_CALLS = 40
_SETTLE = 90.0
_HOLD = 60.0
"""Seconds that requests to a sleeping app may wait: a daemon may have to be started first."""


@dataclass
class Target:
    """One app, and what it may answer."""

    name: str
    repository: Repository
    prober: Prober
    page: str
    """What was acknowledged last."""
    possible: set[str] = field(default_factory=set)
    """Pages of later attempts that were not acknowledged: whoever is cut off cannot know."""
    value: str = ""
    possible_values: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=lambda: {""})
    """All that were ever set."""
    pages: int = 0


@dataclass
class Report:
    deploys: int = 0
    refused: int = 0
    sleeps: int = 0
    faults: int = 0
    failed_requests: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    requests: int = 0

    def __str__(self) -> str:
        return (
            f"deploys {self.deploys} (and {self.refused} refused) · sleeps {self.sleeps} · faults {self.faults}"
            f" · requests {self.requests}\n"
            f"failed requests {len(self.failed_requests)} · orphans {len(self.orphans)}"
            f" · lost acknowledged writes {len(self.lost)}"
        )

    @property
    def is_clean(self) -> bool:
        return not (self.failed_requests or self.orphans or self.lost)


class Storm:
    def __init__(self, seed: int, say: Callable[[str], None] = print) -> None:
        self._random = random.Random(seed)
        self._say = say
        self.report = Report()
        self._engine = Engine()
        self._engine.start()
        self._engine.prepare()
        settings = f'docker_host = "unix://{self._engine.socket}"\n[run]\nfirewall = false\nwatch = 0.0\n'
        settings += f'subnet_pool = "{self._engine.pool}"\nstop_timeout = 2\ndrain = 0.5\nstream_drain = 0.5\n'
        self._box = Box(settings)
        self._fault = self._box.root / "fault"
        self._start_daemon()
        self._targets = [self._target(name) for name in ("one", "two", "three")]

    def run(self, seconds: float) -> Report:
        end = time.monotonic() + seconds
        for target in self._targets:
            target.prober.__enter__()
        while time.monotonic() < end:
            self._step()
        self._settle()
        for target in self._targets:
            target.prober.__exit__(None, None, None)
            self.report.requests += len(target.prober.pages)
            self.report.failed_requests += [f"{target.name}: {failure}" for failure in target.prober.failures]
        self._judge()
        return self.report

    def state(self) -> str:
        """For people who look for what went wrong."""
        containers = self._engine.request("GET", "/containers/json?all=1")
        answers = {target.name: self._box.get(target.name).status for target in self._targets}
        seen = "\n".join(f"  {c['Names'][0]} {c['State']} {c['Status']}" for c in containers)
        return f"{answers}\n{seen}\n{self._box.differences()}"

    def log(self) -> str:
        return self._box.log()

    def close(self) -> None:
        try:
            self._box.close()
        finally:
            self._engine.remove()

    def _step(self) -> None:
        actions = (
            *[self._push] * 5,
            *[self._bad_push] * 2,
            *[self._rollback] * 2,
            *(self._scale, self._configure, self._configure, self._restart, self._sleep, self._sleep),
        )
        action, target = self._random.choice(actions), self._random.choice(self._targets)
        fault = self._random.choice((None, None, self._kill_daemon, self._break_call, self._break_call))
        if self._random.random() < 0.04:
            fault = self._end_engine
        self._say(f"{target.name}: {action.__name__[1:]}" + (f" with {fault.__name__[1:]}" if fault else ""))
        if fault is None:
            action(target)
        else:
            self.report.faults += 1
            fault(lambda: action(target))
        self._ensure_daemon()

    def _push(self, target: Target) -> None:
        target.pages += 1
        page = f"{target.name} {target.pages}"
        target.repository.commit({"index.html": page, "Dockerfile": _DOCKERFILE, "Procfile": _PROCFILE})
        target.possible.add(page)
        if self._box.push(target.repository, target.name, "+main", timeout=180).status == 0:
            target.page, target.possible = page, set()
            self.report.deploys += 1
        else:
            self.report.refused += 1

    def _bad_push(self, target: Target) -> None:
        broken = self._random.choice(({"Procfile": "web: exit 1\n"}, {"Dockerfile": f"FROM {TEST_IMAGE}\nRUN false\n"}))
        target.repository.commit({"index.html": "never", **broken})
        if self._box.push(target.repository, target.name, "+main", timeout=180).status == 0:
            self.report.lost.append(f"{target.name}: a broken app went live")
        self.report.refused += 1

    def _rollback(self, target: Target) -> None:
        done = self._box.ssh("rollback", target.name)
        if done.status == 0:
            # Which brings the config vars of that release back too.
            target.page, target.possible = self._box.get(target.name).text, set()
            target.value, target.possible_values = self._value(target), set()
            self.report.deploys += 1
        else:
            # It may have been made all the same; to which release is not known then.
            target.possible |= {f"{target.name} {number}" for number in range(target.pages + 1)}
            target.possible_values |= target.values

    def _scale(self, target: Target) -> None:
        count, workers = self._random.choice(("1", "2")), self._random.choice(("0", "1"))
        if self._box.ssh("ps:scale", target.name, f"web={count}", f"worker={workers}").status == 0:
            self.report.deploys += 1

    def _restart(self, target: Target) -> None:
        if self._box.ssh("ps:restart", target.name).status == 0:
            self.report.deploys += 1

    def _sleep(self, target: Target) -> None:
        """It is refused while the last request still counts. The first ones that come then wake the app, and wait."""
        with target.prober.resting():
            for _ in range(10):
                if self._box.ssh("sleep:now", target.name).status == 0:
                    self.report.sleeps += 1
                    break
                time.sleep(0.2)
        if self._random.random() < 0.3:
            self._box.ssh("ps:wake", target.name)

    def _configure(self, target: Target) -> None:
        value = str(self._random.randrange(10**9))
        target.possible_values.add(value)
        target.values.add(value)
        if self._box.ssh("config:set", target.name, f"VALUE={value}").status == 0:
            target.value, target.possible_values = value, set()
            self.report.deploys += 1

    def _value(self, target: Target) -> str:
        return self._box.ssh("config:get", target.name, "VALUE").out.strip()

    def _kill_daemon(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action)
        thread.start()
        time.sleep(self._random.uniform(0, 3))
        assert self._box.process is not None
        if self._box.process.poll() is None:
            self._box.kill()
        thread.join()

    def _break_call(self, action: Callable[[], None]) -> None:
        border = self._random.choice(list(BORDERS))
        how = self._random.choice(BORDERS[border])
        self._fault.write_text(f"{border} {self._random.randrange(1, _MOST_CALLS)} {how}\n")
        action()
        self._fault.unlink()

    def _end_engine(self, action: Callable[[], None]) -> None:
        """Requests fail meanwhile, and nobody can help it: those until all apps answer again are not counted."""
        before = [len(target.prober.failures) for target in self._targets]
        thread = threading.Thread(target=action)
        thread.start()
        time.sleep(self._random.uniform(0, 2))
        self._engine.end(self._random.choice((signal.SIGTERM, signal.SIGKILL)))
        thread.join()
        self._engine.start()
        self._ensure_daemon()
        eventually(lambda: all(self._box.get(target.name).status == 200 for target in self._targets), _SETTLE)
        time.sleep(1)
        for target, count in zip(self._targets, before, strict=True):
            del target.prober.failures[count:]

    def _ensure_daemon(self) -> None:
        assert self._box.process is not None
        if self._box.process.poll() is not None:
            self._start_daemon()

    def _start_daemon(self) -> None:
        os.environ["PAASD_FAULTS"] = str(self._fault)
        try:
            self._box.start()
        finally:
            del os.environ["PAASD_FAULTS"]

    def _target(self, name: str) -> Target:
        files = {"index.html": f"{name} 0", "Dockerfile": _DOCKERFILE, "Procfile": _PROCFILE}
        repository = self._box.repository(files)
        done = self._box.push(repository, name)
        assert done.status == 0, done.all
        done = self._box.ssh("sleep:set", name, "after=1h", f"hold={_HOLD:g}s")
        assert done.status == 0, done.all
        return Target(name, repository, Prober(self._box, name, _HOLD + 10), f"{name} 0")

    def _settle(self) -> None:
        try:
            self._box.settles(_SETTLE, self._ensure_daemon)
        except AssertionError:
            self.report.orphans += self._box.differences()

    def _judge(self) -> None:
        wanted = set()
        for target in self._targets:
            page = self._box.get(target.name).text
            if page not in {target.page, *target.possible}:
                self.report.lost.append(f"{target.name} answers {page!r}, acknowledged was {target.page!r}")
            value = self._value(target)
            if value not in {target.value, *target.possible_values}:
                self.report.lost.append(f"{target.name}: VALUE is {value!r}, acknowledged was {target.value!r}")
            wanted |= {i["name"] for i in self._box.json("ps:report", target.name)["instances"]}
            unfinished = [d for d in self._box.json("deployments", target.name) if d["status"] in ("queued", "running")]
            self.report.orphans += [f"{target.name}: deployment {d['number']} never ends" for d in unfinished]
        present = {c["Names"][0].lstrip("/") for c in self._engine.request("GET", "/containers/json?all=1")}
        self.report.orphans += [f"container {name}" for name in sorted(present - wanted)]
