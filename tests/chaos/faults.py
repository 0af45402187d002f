"""Pushes with a fault at the Nth call over one border of the daemon, and what must hold whatever comes of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tests.apps import app
from tests.box import Box, Done, Repository, eventually, labelled
from tests.prober import Prober

BORDERS = {"engine": ("error", "lost", "kill"), "edge": ("error", "lost", "kill"), "database": ("error", "kill")} | {
    "disk": ("error", "lost", "kill")
}
"""What can happen at a call over each: the database's commit cannot be lost, since SQLite says so or not."""
_SETTINGS = "[run]\ndrain = 0.5\nstream_drain = 0.5\nstop_timeout = 2\n"
_PROCFILE = "web: python3 -u app.py\nrelease: echo released\n"


class Faulty:
    """A box with an app that is pushed to again and again."""

    def __init__(self) -> None:
        self.box = Box(_SETTINGS)
        self._file = self.box.root / "fault"
        self._met = self.box.root / "fault.met"
        os.environ["PAASD_FAULTS"] = str(self._file)
        try:
            self.box.start()
        finally:
            del os.environ["PAASD_FAULTS"]
        self._count = 0
        self.repository: Repository = self.box.repository(self._files())
        done = self.box.push(self.repository, "live")
        assert done.status == 0, done.all

    def push(self, border: str, number: int, action: str) -> bool:
        """Push with a fault, and check everything. False when there were fewer calls than that."""
        # The last call of all that a push makes may have met the fault before this one.
        self.box.settles(60, self._revive)
        self._met.unlink(missing_ok=True)
        self._file.write_text(f"{border} {number} {action}\n")
        old, new = self._page(), self._next()
        before = self._newest()["number"]
        self.repository.commit(self._files())
        with Prober(self.box, "live") as prober:
            done = self.box.push(self.repository, "live", "+main", timeout=120)
            self._file.unlink()
            self._ends_well(done, old, new, before)
        assert prober.failures == []
        assert set(prober.pages) <= {old, new}
        return self._met.exists()

    def close(self) -> None:
        self.box.close()

    def _ends_well(self, done: Done, old: str, new: str, before: int) -> None:
        """The daemon may die while it is looked at: what a push began goes on for a moment after its answer."""
        self.box.settles(60, self._revive)
        try:
            self._settled(done, old, new, before)
        except AssertionError:
            if not self._is_dead():
                raise
            self.box.settles(60, self._revive)
            self._settled(done, old, new, before)

    def _revive(self) -> None:
        """A daemon that died is started again, as systemd does it."""
        if self._is_dead():
            self._start()

    def _is_dead(self) -> bool:
        return self.box.process is None or self.box.process.poll() is not None

    def _newest(self) -> dict[str, Any]:
        found: dict[str, Any] = self.box.json("deployments", "live")[0]
        return found

    def _settled(self, done: Done, old: str, new: str, before: int) -> None:
        """What the pusher was told is so, everything has an end and a reason, and nothing is left over."""
        live = self.box.get("live").text
        assert live in (old, new)
        if done.status == 0:
            assert live == new, "an acknowledged push is live"
        else:
            assert self._met.exists(), done.all
            assert "!" in done.all or "hung up" in done.all, done.all
            assert "Traceback" not in done.all
        newest = self._newest()
        assert newest["status"] in ("succeeded", "failed", "cancelled"), newest
        assert (newest["number"] > before and newest["status"] == "succeeded") == (live == new), newest
        assert newest["status"] == "succeeded" or newest["reason"], newest
        eventually(lambda: self._only_the_live() and len(labelled("networks", self.box.label)) == 1, 60)

    def _only_the_live(self) -> bool:
        """Asked anew each time: what still retires is there at first."""
        instances = self.box.json("ps:report", "live")["instances"]
        wanted = {instance["name"] for instance in instances}
        present = {container["Names"][0].lstrip("/") for container in self.box.containers()}
        return present == wanted and all(instance["duty"] == "live" for instance in instances)

    def _start(self) -> None:
        os.environ["PAASD_FAULTS"] = str(self._file)
        try:
            self.box.start()
        finally:
            del os.environ["PAASD_FAULTS"]

    def _files(self) -> dict[str, str]:
        return app(body=f"page {self._count}", Procfile=_PROCFILE)

    def _page(self) -> str:
        return self.box.get("live").text

    def _next(self) -> str:
        self._count += 1
        return f"page {self._count}"


@contextlib.contextmanager
def faulty() -> Iterator[Faulty]:
    made = Faulty()
    try:
        yield made
    finally:
        made.close()
