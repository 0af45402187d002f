"""Procfile, app.json, and checkouts of real Git repositories."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from paasd.errors import SourceRejected
from paasd.models import ProcessType
from paasd.source import app_json, procfile
from paasd.source.checkout import open_checkout, quarantine_environment
from tests.box import Repository


def test_procfile_with_comments_and_blank_lines() -> None:
    text = "# comment\nweb: gunicorn app:app --bind 0.0.0.0:$PORT # trailing\n\n// other\nworker-2:   python w.py\r\n"
    assert procfile.parse(text) == (
        ProcessType("web", "gunicorn app:app --bind 0.0.0.0:$PORT"),
        ProcessType("worker-2", "python w.py"),
    )


def test_a_url_in_a_command_is_not_a_comment() -> None:
    assert procfile.parse("web: run http://example.org/#top\n")[0].command == "run http://example.org/#top"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("web gunicorn\n", "line 1"),
        ("web: a\nweb: b\n", "line 2 repeats"),
        ("web: a\n\nWorker: b\n", "line 3"),
        ("web:\n", "line 1"),
        ("", "names no process type"),
        ("# only a comment\n", "names no process type"),
        ("a_b: x\n", "line 1"),
    ],
)
def test_a_wrong_procfile_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(SourceRejected, match=said):
        procfile.parse(text)


def test_healthchecks_of_app_json() -> None:
    text = '{"name": "x", "healthchecks": {"web": [{"path": "/up", "timeout": 3}]}}'
    assert app_json.parse(text).healthchecks == {"web": [{"path": "/up", "timeout": 3}]}
    assert app_json.parse(None) == app_json.parse("{}") == app_json.AppJson()


def formation(autoscaling: object) -> str:
    return json.dumps({"formation": {"web": {"quantity": 2, "autoscaling": autoscaling}}})


def test_autoscaling_of_app_json() -> None:
    triggers = [{"name": "x", "type": "cpu", "metadata": {"type": "Utilization", "value": "60"}}]
    given = {"min_quantity": 1, "max_quantity": 9, "cooldown_period_seconds": 60, "triggers": triggers}
    kept = app_json.parse(formation(given)).kept
    assert kept["autoscaling"] == {"web": {"min": "1", "max": "9", "cooldown": "60", "cpu": "60"}}
    assert kept["formation"] == {"web": 2}


@pytest.mark.parametrize(
    ("autoscaling", "said"),
    [
        ([], "web.autoscaling must be an object"),
        ({"min_quantity": 1}, "web.autoscaling: autoscaling needs a max"),
        ({"max_quantity": 3}, "needs one of"),
        ({"max_quantity": 300}, "max must be"),
        ({"max_quantity": 3, "triggers": {}}, "triggers must be a list"),
        ({"max_quantity": 3, "triggers": [{"type": "http"}]}, r"triggers\[0\] is not by use"),
        ({"max_quantity": 3, "triggers": [{"type": "cpu", "metadata": {"value": "x"}}]}, "cpu must be"),
    ],
)
def test_autoscaling_that_makes_no_rule_is_refused(autoscaling: object, said: str) -> None:
    with pytest.raises(SourceRejected, match=said):
        app_json.parse(formation(autoscaling))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"healthchecks": []}',
        '{"healthchecks": {"web": {}}}',
        '{"healthchecks": {"web": ["x"]}}',
        '{"healthchecks": {"web": [{"path": "up"}]}}',
        '{"healthchecks": {"web": [{"timeout": "5"}]}}',
        '{"healthchecks": {"web": [{"attempts": -1}]}}',
        "[" * 100_000,
    ],
)
def test_a_wrong_app_json_is_refused(text: str) -> None:
    with pytest.raises(SourceRejected, match=r"app\.json"):
        app_json.parse(text)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path)
    repository.git("init", "-q", "-b", "main")
    return repository


async def test_a_checkout_has_paths_texts_and_a_tar(repository: Repository) -> None:
    revision = repository.commit(
        {
            "Procfile": "web: run\n",
            "a/b.txt": "deep",
            "caf\udce9.txt".encode("utf-8", "surrogateescape").decode("latin-1"): "x",
        }
    )
    checkout = await open_checkout(repository.path, revision)
    assert {"Procfile", "a/b.txt"} <= checkout.files
    assert checkout.read("a/b.txt") == "deep"
    assert checkout.read("nothing") is None
    assert checkout.manifest.process_types == (ProcessType("web", "run"),)
    data = b"".join([piece async for piece in checkout.tar("app/")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {"app/Procfile", "app/a/b.txt"} <= set(archive.getnames())


async def test_files_near_the_root_are_read_in_one_go(repository: Repository) -> None:
    deep = {f"{'deep/' * 9}{number}": f"deep {number}" for number in range(400)}
    revision = repository.commit({**deep, "cmd/web/main.go": "package main", "large": "x" * 300_000})
    checkout = await open_checkout(repository.path / ".git", revision)
    repository.path.joinpath(".git").rename(repository.path / "away")
    assert checkout.read("cmd/web/main.go") == "package main"
    with pytest.raises(subprocess.CalledProcessError):
        checkout.read(f"{'deep/' * 9}99")
    with pytest.raises(subprocess.CalledProcessError):
        checkout.read("large")
    repository.path.joinpath("away").rename(repository.path / ".git")
    assert [checkout.read(path) for path in deep] == list(deep.values())


async def test_names_that_are_not_utf8_survive(repository: Repository) -> None:
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"content")
    tree = repository.git("mktree", "-z", stdin=f"100644 blob {blob}\t".encode() + b"caf\xe9.txt\0")
    revision = repository.git("commit-tree", tree, "-m", "x")
    checkout = await open_checkout(repository.path, revision)
    assert checkout.files == {os.fsdecode(b"caf\xe9.txt")}
    assert checkout.read(os.fsdecode(b"caf\xe9.txt")) == "content"


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../b", "../../x"])
async def test_links_that_leave_the_tree_are_refused(repository: Repository, target: str) -> None:
    (repository.path / "link").symlink_to(target)
    revision = repository.commit({"index.html": "x"})
    with pytest.raises(SourceRejected, match="points outside"):
        await open_checkout(repository.path, revision)


async def test_links_inside_the_tree_are_fine(repository: Repository) -> None:
    (repository.path / "sub").mkdir()
    (repository.path / "sub" / "link").symlink_to("../index.html")
    revision = repository.commit({"index.html": "x"})
    assert (await open_checkout(repository.path, revision)).read("sub/link") is None


async def test_an_empty_commit_is_refused(repository: Repository) -> None:
    with pytest.raises(SourceRejected, match="no files"):
        await open_checkout(repository.path, repository.commit({}))


async def test_lfs_pointers_and_submodules_are_named(repository: Repository) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    with pytest.raises(SourceRejected, match="LFS pointer"):
        await open_checkout(repository.path, repository.commit({"model.bin": pointer}))
    revision = repository.commit({"model.bin": "real"})
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{revision},vendor/lib")
    repository.git("commit", "-qm", "module")
    with pytest.raises(SourceRejected, match="submodules"):
        await open_checkout(repository.path, repository.git("rev-parse", "HEAD"))


async def test_attributes_do_not_change_what_is_deployed(tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    (bare / "info" / "attributes").write_text("* -export-ignore -export-subst\n")
    work = Repository(tmp_path / "work")
    work.path.mkdir()
    work.git("init", "-q", "-b", "main")
    revision = work.commit({".gitattributes": "secret.txt export-ignore\n", "secret.txt": "kept"})
    work.git("push", "-q", str(bare), "main")
    checkout = await open_checkout(bare, revision)
    data = b"".join([piece async for piece in checkout.tar()])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert "secret.txt" in archive.getnames()


def test_only_a_quarantine_of_the_same_repository_is_read(tmp_path: Path) -> None:
    inside = tmp_path / "objects" / "tmp_objdir-incoming-x"
    assert quarantine_environment(tmp_path, inside)["GIT_OBJECT_DIRECTORY"] == str(inside)
    assert quarantine_environment(tmp_path, None) == {}
    for foreign in (tmp_path / "other", Path("/etc"), tmp_path / "objects" / ".." / "x"):
        with pytest.raises(SourceRejected):
            quarantine_environment(tmp_path, foreign)
