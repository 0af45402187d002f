"""Which refs a push may carry: what would be stored unjudged, or refused by git after the release went live, is
refused before anything is built; what is only stored or removed says so."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.apps import app, slow_build
from tests.box import Box, Done, Repository, eventually, run

pytestmark = pytest.mark.engine
NOTHING = "0" * 40


def refs(box: Box, name: str) -> dict[str, str]:
    """As a client sees them."""
    done = run(["git", "ls-remote", box.remote(name)], env=box.git_environment())
    assert done.status == 0, done
    return {line.split("\t")[1]: line.split("\t")[0] for line in done.out.splitlines() if "\tHEAD" not in line}


def push(box: Box, repository: Repository, name: str, *words: str) -> Done:
    command = ["git", "-C", str(repository.path), "push", box.remote(name), *words]
    return run(command, env=box.git_environment(), timeout=300)


def untouched(box: Box, name: str, before: Mapping[str, Any]) -> None:
    assert state(box, name) == before
    box.settles()


def state(box: Box, name: str) -> dict[str, Any]:
    return {
        "refs": refs(box, name),
        "release": box.json("apps:info", name)["release"],
        "deployed": [d["release"] for d in box.json("deployments", name) if d["status"] == "succeeded"],
        "releases": len(box.json("releases", name)),
    }


@pytest.fixture(scope="module")
def repository(box: Box) -> Repository:
    """What the app `branches` was deployed from; it has branches and tags of its own."""
    repository = box.repository(app(body="one"))
    assert box.push(repository, "branches").status == 0
    repository.git("branch", "feature")
    repository.git("tag", "v1")
    return repository


def test_a_second_branch_is_refused_with_the_command_that_works(box: Box, repository: Repository) -> None:
    repository.commit(app(body="two"))
    before = state(box, "branches")
    for words in (["main", "feature"], ["feature", "main"], ["--all"], ["main", "feature", "v1"]):
        done = push(box, repository, "branches", *words)
        assert done.status != 0
        assert "2 branches in one push (" in done.all and "an app deploys one" in done.all
        assert "git push <remote> main" in done.all
    untouched(box, "branches", before)
    done = push(box, repository, "branches", "main")
    assert done.status == 0, done
    assert box.get("branches").text == "two"


def test_a_first_push_of_two_branches_is_refused_too(box: Box, repository: Repository) -> None:
    assert box.ssh("apps:create", "two-first").status == 0
    done = push(box, repository, "two-first", "main:release", "feature:trunk")
    assert done.status != 0 and "git push <remote> release" in done.all
    assert refs(box, "two-first") == {}


def test_a_branch_beside_a_deleted_one_is_refused(box: Box, repository: Repository) -> None:
    before = state(box, "branches")
    done = push(box, repository, "branches", "feature", ":main")
    assert done.status != 0 and "2 branches in one push" in done.all
    untouched(box, "branches", before)


def test_tags_beside_the_branch_are_stored(box: Box, repository: Repository) -> None:
    repository.commit(app(body="tagged"))
    repository.git("tag", "-f", "v2")
    done = push(box, repository, "branches", "main", "v2", "v1")
    assert done.status == 0, done
    assert box.get("branches").text == "tagged"
    assert {"refs/heads/main", "refs/tags/v1", "refs/tags/v2"} == set(refs(box, "branches"))


def test_tags_can_be_deleted(box: Box, repository: Repository) -> None:
    repository.git("tag", "-f", "gone")
    assert push(box, repository, "branches", "gone").status == 0
    done = push(box, repository, "branches", ":gone")
    assert done.status == 0 and "Deleting gone; what is live stays" in done.all
    assert "refs/tags/gone" not in refs(box, "branches")


def test_the_deploy_branch_cannot_be_deleted(box: Box, repository: Repository) -> None:
    before = state(box, "branches")
    done = push(box, repository, "branches", ":main")
    assert done.status != 0
    assert "branches deploys the branch main; deleting it would not change what is live" in done.all
    assert "ps:stop branches" in done.all and "apps:destroy branches" in done.all
    untouched(box, "branches", before)


@pytest.mark.parametrize(("first", "second"), [("main", "main/x"), ("main/x", "main")])
def test_names_git_cannot_keep_together_are_refused_before_the_build(
    new_box: Callable[..., Box], box: Box, repository: Repository, first: str, second: str
) -> None:
    name = "folder" if first == "main" else "file"
    assert push(box, repository, name, f"main:{first}").status == 0
    assert box.ssh("git:set", name, "deploy-branch", second).status == 0
    repository.commit({"note": name})
    before = state(box, name)
    done = push(box, repository, name, f"main:{second}")
    assert done.status != 0
    assert f"Git cannot keep '{second}' beside '{first}'" in done.all
    assert f"git push <remote> --delete {first}" in done.all
    assert "Building" not in done.all
    untouched(box, name, before)
    assert push(box, repository, name, "--delete", first).status == 0
    done = push(box, repository, name, f"main:{second}")
    assert done.status == 0, done
    assert set(refs(box, name)) == {f"refs/heads/{second}"}


def test_a_tag_that_git_cannot_keep_stops_an_atomic_push_before_the_build(box: Box, repository: Repository) -> None:
    repository.git("tag", "-f", "t1")
    assert push(box, repository, "branches", "t1").status == 0
    repository.commit({"note": "atomic"})
    before = state(box, "branches")
    done = push(box, repository, "branches", "--atomic", "main", "t1:refs/tags/t1/x")
    assert done.status != 0 and "Git cannot keep 't1/x' beside 't1'" in done.all
    untouched(box, "branches", before)


def test_a_lock_left_by_a_killed_git_is_met_before_the_build(box: Box, repository: Repository) -> None:
    repository.commit({"note": "lock"})
    before = state(box, "branches")
    path = next(p for p in (box.data / "repositories").glob("*.git") if has(p, before["refs"]["refs/heads/main"]))
    lock = path / "refs" / "heads" / "main.lock"
    lock.touch()
    try:
        done = push(box, repository, "branches", "main")
    finally:
        lock.unlink()
    assert done.status != 0 and "Git would not store 'main'" in done.all and "doctor --state" in done.all
    untouched(box, "branches", before)


def has(path: Any, revision: str) -> bool:
    done = subprocess.run(
        ["git", "-C", str(path), "rev-parse", "-q", "--verify", "main"], capture_output=True, text=True
    )
    return done.stdout.strip() == revision


@pytest.mark.parametrize(
    ("ref", "answer"),
    [
        (b"refs/heads/a b", "invalid branch name"),
        (b"refs/heads/-x", "invalid branch name"),
        (b"refs/heads/x.lock", "invalid branch name"),
        (b"refs/heads/caf\xe9", "pushed"),
        ("refs/heads/a\u2028refs/heads/main".encode(), "pushed"),
        (b"refs/heads/\x1b[2Jx", "invalid branch name"),
        (b"HEAD", "only branches and tags"),
        (b"refs/remotes/origin/main", "only branches and tags"),
    ],
    ids=ascii,
)
def test_names_no_git_client_would_send(box: Box, repository: Repository, ref: bytes, answer: str) -> None:
    """Spoken to git-receive-pack directly."""
    revision = repository.git("rev-parse", "main")
    assert push(box, repository, "branches", "main").status == 0
    before = state(box, "branches")
    line = f"{NOTHING} {revision} ".encode() + ref + b"\0 report-status\n"
    pack = repository.git("rev-parse", "HEAD").encode() + b"\n"
    packed = subprocess.run(
        ["git", "-C", str(repository.path), "pack-objects", "--stdout", "-q"],
        input=pack,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    request = f"{len(line) + 4:04x}".encode() + line + b"0000" + packed
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "git-receive-pack 'branches'"]
    done = subprocess.run(command, input=request, capture_output=True, timeout=60, check=False)
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert f"ng {ref.decode(errors='replace')}" in text or "fatal" in text, text
    assert b"\x1b" not in done.stderr and "Traceback" not in text
    untouched(box, "branches", before)


def test_what_is_only_stored_waits_its_turn(new_box: Callable[..., Box]) -> None:
    box = new_box().start()
    repository = box.repository(app())
    assert box.push(repository, "turns").status == 0
    repository.git("tag", "v1")
    repository.commit(slow_build(20))
    pushing = box.begin_push(repository, "turns")
    eventually(lambda: any(b["status"] == "running" for b in box.json("builds", "turns")), 60)
    done = push(box, repository, "turns", "v1")
    assert done.status != 0 and "another push to this app is under way" in done.all
    assert box.ssh("builds:cancel", "turns").status == 0
    assert pushing.wait(60) != 0
    eventually(lambda: push(box, repository, "turns", "v1").status == 0, 30)
