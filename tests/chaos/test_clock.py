"""The system's clock is set while the daemon runs. Only as far as the daemon sees it, through libfaketime."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.apps import app as small_app
from tests.box import Box, Repository, eventually

pytestmark = [pytest.mark.engine, pytest.mark.slow]

HOUR, DAY = 3600, 86400


class Clock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.ahead = 0
        self.set(0)

    def set(self, ahead: int) -> None:
        self.ahead = ahead
        new = self.path.with_suffix(".new")
        new.write_text(f"{ahead:+d}\n")
        new.rename(self.path)

    def now(self) -> float:
        return time.time() + self.ahead

    @contextmanager
    def given(self) -> Iterator[None]:
        """To what is started meanwhile."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        environment = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self.path)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environment | {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}).items():
                patch.setenv(name, value)
            yield


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module")
def box(clock: Clock) -> Iterator[Box]:
    box = Box("[run]\ndrain = 0.5\nstream_drain = 0.5\nstop_timeout = 2\n")
    try:
        with clock.given():
            box.start()
        yield box
    finally:
        box.close()


@pytest.fixture(scope="module")
def repository(box: Box) -> Repository:
    """Of a live app with a preview and a cron entry for every minute."""
    cron = {"cron": [{"command": "true", "schedule": "* * * * *"}]}
    repository = box.repository(small_app(app__json=json.dumps(cron)))
    assert box.push(repository, "shop").status == 0
    assert box.ssh("previews:enable", "shop", "--ttl", "7d").status == 0
    assert box.push(repository, "shop", "HEAD:feature").status == 0
    return repository


def next_run(box: Box) -> float:
    (entry,) = box.json("cron:list", "shop")
    return datetime.fromisoformat(entry["next_at"]).timestamp()


def planned_anew(box: Box, clock: Clock) -> bool:
    return -5 < next_run(box) - clock.now() <= 65


def works(box: Box, repository: Repository, text: str) -> None:
    repository.commit({"note.txt": text})
    done = box.push(repository, "shop")
    assert done.status == 0, done
    assert box.get("shop").status == 200
    assert [p["branch"] for p in box.json("previews", "shop")["items"]] == ["feature"], "its seven days are not over"
    assert "dead" not in {job["status"] for job in box.json("jobs")}
    box.settles()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR, 30 * DAY, -730 * DAY], ids=["+1h", "-1h", "+30d", "-2y"])
def test_the_clock_is_set(box: Box, clock: Clock, repository: Repository, ahead: int) -> None:
    """Each time from where it was put before. Schedules go by the new time; whatever is to happen after a while still
    happens after that while."""
    clock.set(ahead)
    eventually(lambda: planned_anew(box, clock))
    works(box, repository, f"set by {ahead}")


def test_started_years_in_the_past(box: Box, clock: Clock, repository: Repository) -> None:
    """As a box without a battery does, until it reaches a time server."""
    box.kill()
    clock.set(-730 * DAY)
    with clock.given():
        box.start()
    eventually(lambda: planned_anew(box, clock))
    works(box, repository, "in the past")
    queued = [job for job in box.json("jobs") if job["status"] == "queued" and job["queue"] == "cleanup"]
    later = max(datetime.fromisoformat(job["run_at"]).timestamp() for job in queued if job["type"] != "preview.expire")
    assert later < time.time() + HOUR, "recurring jobs wait for minutes, not for years"
    clock.set(0)
    eventually(lambda: planned_anew(box, clock))
    works(box, repository, "in the present")
