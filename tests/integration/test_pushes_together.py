"""Pushes at the same time: to one app they take turns and the newest wins; to several they run side by side."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.apps import app, slow_build
from tests.box import Box, Repository, eventually, run

pytestmark = pytest.mark.engine

Started = subprocess.Popen[str]


@pytest.fixture
def clean(box: Box) -> Iterator[Box]:
    """The shared box, in which database, engine and files must agree again after the test."""
    yield box
    box.settles(30)


def head(box: Box, name: str) -> str:
    """Where the app's branch is on the box, asked through git."""
    done = run(["git", "ls-remote", box.remote(name), "refs/heads/main"], env=box.git_environment())
    assert done.status == 0, done
    return done.out.split("\t")[0]


def live(box: Box, name: str) -> str:
    """The revision whose build is live, as the newest successful one."""
    builds = [b for b in box.json("builds", name) if b["status"] == "succeeded"]
    return str(builds[0]["revision"])


def outcome(push: Started) -> tuple[int, str]:
    text, _ = push.communicate(timeout=90)
    return push.returncode, text


def builds_under_way(box: Box, name: str) -> int:
    return sum(build["status"] == "running" for build in box.json("builds", name))


def clone_with(box: Box, repository: Repository, files: dict[str, str]) -> Repository:
    """Another developer's copy, with one commit more."""
    path = repository.path.with_name(f"{repository.path.name}-{time.monotonic_ns():x}")
    repository.git("clone", "-q", str(repository.path), str(path))
    copy = Repository(path)
    copy.commit(files)
    return copy


def test_newer_push_supersedes_the_older_one(clean: Box) -> None:
    box = clean
    repository = box.repository(app(body="base"))
    assert box.push(repository, "race").status == 0
    older, newer = (clone_with(box, repository, files) for files in (slow_build(20), app(body="newer")))
    first = box.begin_push(older, "race")
    eventually(lambda: builds_under_way(box, "race"))
    second = box.push(newer, "race")
    status, text = outcome(first)
    assert second.status == 0, second
    assert "Taking over from build 2, which has not gone live" in second.all
    assert status != 0 and "! [remote rejected]" in text
    assert f"a newer push ({newer.git('rev-parse', 'HEAD')[:8]}) to the same app took over" in text
    assert box.get("race").text == "newer"
    assert [b["status"] for b in box.json("builds", "race")] == ["succeeded", "superseded", "succeeded"]
    assert head(box, "race") == live(box, "race") == newer.git("rev-parse", "HEAD")


def test_push_that_is_going_live_is_waited_for_and_git_decides(clean: Box) -> None:
    """The older one cannot be stopped any more; the newer one is then behind the branch, as git would say too."""
    box = clean
    repository = box.repository(app(body="base"))
    assert box.push(repository, "late").status == 0
    pushes = [box.begin_push(clone_with(box, repository, app(body=f"late {i}")), "late") for i in range(5)]
    ends = [outcome(push) for push in pushes]
    accepted = [i for i, (status, _) in enumerate(ends) if status == 0]
    assert len(accepted) == 1, ends
    assert all("took over" in text or "another push moved main" in text for s, text in ends if s), ends
    assert box.get("late").text == f"late {accepted[0]}"
    assert head(box, "late") == live(box, "late")


def test_push_behind_one_that_is_going_live_is_refused_before_it_builds(new_box: Callable[..., Box]) -> None:
    box = new_box().start(failpoint="after-commit:sleep=2")
    repository = box.repository(app(body="base"))
    assert box.push(repository, "behind").status == 0
    first = box.begin_push(clone_with(box, repository, app(body="first")), "behind")
    eventually(lambda: box.get("behind").text == "first")
    second = box.push(clone_with(box, repository, app(body="second")), "behind")
    status, text = outcome(first)
    assert status == 0, text
    assert second.status != 0 and "another push moved main to" in second.all and "git fetch" in second.all
    assert "Waiting for build 2, which is going live" in second.all
    assert head(box, "behind") == live(box, "behind")
    assert box.get("behind").text == "first"


def test_five_forced_pushes_in_a_second(clean: Box) -> None:
    box = clean
    repository = box.repository(app(body="base"))
    assert box.push(repository, "storm").status == 0
    copies = [clone_with(box, repository, app(body=f"storm {i}")) for i in range(5)]
    pushes = [box.begin_push(copy, "storm", "+main") for copy in copies]
    ends = [outcome(push) for push in pushes]
    revisions = {copy.git("rev-parse", "HEAD"): i for i, copy in enumerate(copies)}
    winners = [i for i, (status, _) in enumerate(ends) if status == 0]
    assert winners, ends
    assert head(box, "storm") == live(box, "storm")
    winner = revisions[head(box, "storm")]
    assert winner in winners
    assert box.get("storm").text == f"storm {winner}"
    statuses = {b["status"] for b in box.json("builds", "storm")}
    assert statuses <= {"succeeded", "superseded", "failed"}
    for status, text in ends:
        assert status == 0 or "! [remote rejected]" in text, text


def test_different_apps_wait_their_turn_and_see_their_place(new_box: Callable[..., Box]) -> None:
    box = new_box("[build]\nconcurrency = 1\n").start()
    first = box.begin_push(box.repository(slow_build(4, body="one")), "one")
    eventually(lambda: any(a["name"] == "one" for a in box.json("apps:list")) and builds_under_way(box, "one"))
    second = box.begin_push(box.repository(app(body="two")), "two")
    eventually(lambda: any(a["name"] == "two" for a in box.json("apps:list")) and box.json("builds", "two"))
    third = box.begin_push(box.repository(app(body="three")), "three")
    texts = [outcome(push) for push in (first, second, third)]
    assert [status for status, _ in texts] == [0, 0, 0], texts
    assert "Waiting for a builder: 1 builds are running, position 1" in texts[1][1]
    assert "position 2" in texts[2][1] and "position 1" in texts[2][1]
    assert [box.get(name).text for name in ("one", "two", "three")] == ["one", "two", "three"]


def test_different_apps_build_side_by_side(clean: Box) -> None:
    box = clean
    pushes = [box.begin_push(box.repository(slow_build(3, body=name)), name) for name in ("left", "right")]
    eventually(
        lambda: (
            {"left", "right"} <= {a["name"] for a in box.json("apps:list")}
            and builds_under_way(box, "left") == builds_under_way(box, "right") == 1
        )
    )
    assert [outcome(push)[0] for push in pushes] == [0, 0]


def test_cancelling_a_build_from_another_session(clean: Box) -> None:
    box = clean
    push = box.begin_push(box.repository(slow_build(30)), "stopped")
    eventually(lambda: any(a["name"] == "stopped" for a in box.json("apps:list")) and builds_under_way(box, "stopped"))
    cancelled = box.ssh("builds:cancel", "stopped")
    assert cancelled.status == 0 and "Cancelling build 1 of stopped" in cancelled.out
    status, text = outcome(push)
    assert status != 0 and "cancelled by" in text and "! [remote rejected]" in text
    assert box.json("builds", "stopped")[0]["status"] == "cancelled"
    again = box.ssh("builds:cancel", "stopped")
    assert again.status == 1 and "no build" in again.err
    assert box.push(box.repository(app(body="next")), "stopped").status == 0


def test_destroying_an_app_in_the_middle_of_its_push(clean: Box) -> None:
    box = clean
    push = box.begin_push(box.repository(slow_build(30)), "doomed")
    eventually(lambda: any(a["name"] == "doomed" for a in box.json("apps:list")) and builds_under_way(box, "doomed"))
    assert box.ssh("apps:destroy", "doomed", "--force").status == 0
    status, text = outcome(push)
    assert status != 0 and "doomed was destroyed" in text
    assert box.ssh("apps:info", "doomed").status == 1


def test_config_change_during_a_push_is_in_what_goes_live(clean: Box) -> None:
    box = clean
    assert box.push(box.repository(app(body="old")), "mixed").status == 0
    push = box.begin_push(box.repository(slow_build(3, body="new")), "mixed", "+main")
    eventually(lambda: builds_under_way(box, "mixed"))
    assert box.ssh("config:set", "mixed", "COLOUR=green").status == 0
    status, text = outcome(push)
    assert status == 0, text
    assert "COLOUR" in box.json("releases", "mixed")[0]["config"]
    assert box.get("mixed").text == "new"
