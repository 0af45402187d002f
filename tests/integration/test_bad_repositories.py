"""Repositories and pushes that cannot be deployed: each is refused with what was seen and what to do, and nothing of it
is kept; odd but harmless ones deploy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apps import app
from tests.box import Box, Done, Repository, run

pytestmark = pytest.mark.engine


def objects(box: Box) -> set[str]:
    """Every object file and temporary directory of all repositories of the box."""
    root = box.data / "repositories"
    return {str(path.relative_to(root)) for path in root.glob("*.git/objects/**/*") if path.is_file()}


def refused(box: Box, repository: Repository, name: str, *wanted: str, refspec: str = "main", options: str = "") -> str:
    """Push what must be refused with one explanation, and see that nothing of it stays but the empty app."""
    if name not in {app["name"] for app in box.json("apps:list")}:
        assert box.ssh("apps:create", name).status == 0
    before = objects(box)
    done = box.push(repository, name, refspec, *options.split())
    assert done.status != 0, done
    for text in wanted:
        assert text in done.all, done
    assert "Traceback" not in done.all and "its log says why" not in done.all
    assert objects(box) == before
    assert box.json("apps:info", name)["release"] is None
    box.settles()
    return done.all


def test_empty_commit(box: Box) -> None:
    refused(box, box.repository({}), "empty", "the pushed commit holds no files", "Add and commit your app's files")


def test_unrecognisable_repository_says_what_was_looked_for(box: Box) -> None:
    files = {"README.md": "hello", "notes/today.txt": "x"}
    seen = refused(box, box.repository(files), "puzzle", "its root holds: README.md, notes", "Looked for: Dockerfile")
    assert "requirements.txt" in seen and "index.html" in seen
    assert "Add one of these files" in seen


@pytest.mark.parametrize(
    ("procfile", "line"),
    [
        ("web: python3 app.py\nthis is wrong\n", "Procfile line 2"),
        ("# comment\n\nWEB!: x\n", "Procfile line 3"),
        ("web: a\nweb: b\n", "Procfile line 2 repeats the process type web"),
        ("web:\n", "Procfile line 1"),
        ("# nothing\n", "names no process type"),
        ("web: \x1b[2Jx\n\x00bad", "Procfile line 2"),
    ],
)
def test_invalid_procfile_names_its_line(box: Box, procfile: str, line: str) -> None:
    refused(box, box.repository(app(Procfile=procfile)), "procfile", line)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{", "app.json is not valid JSON"),
        ("[]", "app.json must hold one object"),
        ('{"healthchecks": []}', "healthchecks must map process types"),
        ('{"healthchecks": {"web": [{"path": 5}]}}', "healthchecks.web[0].path must be"),
        ('{"healthchecks": {"web": [{"path": "/", "content": 5}]}}', "healthchecks.web[0].content must be"),
        ('{"healthchecks": {"web": [{"wait": NaN}]}}', "healthchecks.web[0].wait must be"),
        ('{"healthchecks": {"web": [{"path": "/"}, {"type": "ready"}]}}', "healthchecks.web[1].type must be"),
        ('{"healthchecks": {"worker": [{"command": "x y"}]}}', "healthchecks.worker[0].command must be a list"),
        ("[" * 100_000, "app.json is not valid JSON"),
    ],
)
def test_invalid_app_json_names_what_is_wrong(box: Box, text: str, wanted: str) -> None:
    refused(box, box.repository(app(app__json=text)), "appjson", wanted)


@pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd", "a/../../x"])
def test_symlink_out_of_the_tree(box: Box, target: str) -> None:
    repository = box.repository(app())
    os.symlink(target, repository.path / "link")
    repository.commit({})
    refused(box, repository, "links", "the symbolic link 'link' points outside the repository", "relative link")


def test_symlink_inside_the_tree_deploys(box: Box) -> None:
    repository = box.repository(app("serve()", body="linked") | {"real/page.txt": "x"})
    os.symlink("real/page.txt", repository.path / "page.txt")
    repository.commit({})
    assert box.push(repository, "inner-link").status == 0


def test_submodule(box: Box) -> None:
    repository = box.repository(app())
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/lib")
    repository.git("commit", "-q", "-m", "submodule")
    refused(box, repository, "modules", "has submodules ('vendor/lib')", "git rm --cached")


def test_lfs_pointer(box: Box) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345678\n"
    repository = box.repository(app() | {"data/big.bin": pointer})
    refused(box, repository, "lfs", "'data/big.bin' is a Git LFS pointer", "git lfs migrate export")


def test_foreign_build_frontend(box: Box) -> None:
    files = app(Dockerfile="# syntax=evil.example/frontend:1\nFROM paasd/python:3.13\n")
    refused(box, box.repository(files), "frontend", "Dockerfile line 1 asks for the build frontend", "only Docker's")


def test_missing_base_image_says_so(box: Box) -> None:
    files = app(Dockerfile="FROM localhost:9/nothing:1\n")
    refused(box, box.repository(files), "baseless", "localhost:9/nothing:1", "use one it has")


def test_odd_file_names_deploy_and_run_nothing(box: Box) -> None:
    main = "names = sorted(os.listdir(b'.'))\nBODY = repr(names)\n"
    serve = "Handler.do_GET.__globals__\nserve()"
    files = app(f"{main}{serve}")
    files["app.py"] = files["app.py"].replace("body = 'hello'.encode()", "body = BODY.encode()")
    odd: dict[bytes, bytes] = {
        b"--help": b"1",
        b"-rf": b"2",
        b"a b": b"3",
        b"x'$(touch C)'.conf": b"4",
        b"caf\xe9.txt": b"5",
        b"new\nline": b"6",
        b"; touch D #": b"7",
        "ünïcode".encode(): b"8",
    }
    repository = box.repository(files)
    for name, content in odd.items():
        with open(os.fsencode(repository.path) + b"/" + name, "wb") as file:
            file.write(content)
    repository.commit({})
    done = box.push(repository, "odd")
    assert done.status == 0, done
    page = box.get("odd").text
    for name in odd:
        assert repr(name) in page, (name, page)
    assert "b'C'" not in page and "b'D'" not in page


def test_push_over_the_size_limit_is_refused_early_and_nothing_kept(new_box: Callable[..., Box]) -> None:
    small = new_box("[push]\nmax_size = 200000\n").start()
    repository = small.repository(app() | {"noise.bin": os.urandom(3_000_000)})
    refused(small, repository, "heavy", "pack exceeds maximum allowed size")
    (repository.path / "noise.bin").unlink()
    light = small.repository(app(body="light"))
    assert small.push(light, "heavy").status == 0
    assert small.get("heavy").text == "light"


def test_unknown_apps_can_be_refused(new_box: Callable[..., Box]) -> None:
    strict = new_box("[push]\ncreate_apps = false\n").start()
    repository = strict.repository(app())
    done = strict.push(repository, "unknown")
    assert done.status != 0
    assert "no app named 'unknown'" in done.all and "apps:create unknown" in done.all
    assert strict.json("apps:list") == []
    assert objects(strict) == set()
    assert strict.ssh("apps:create", "unknown").status == 0
    assert strict.push(repository, "unknown").status == 0


@pytest.fixture(scope="module")
def repository(box: Box) -> Repository:
    """What the app `refs` was deployed from."""
    repository = box.repository(app(body="one"))
    assert box.push(repository, "refs").status == 0
    return repository


class TestRefs:
    """One app; which refs may be pushed to it."""

    def push(self, box: Box, repository: Repository, refspec: str, *options: str) -> Done:
        return box.push(repository, "refs", refspec, *options)

    def test_another_branch_is_refused_with_the_command_that_works(self, box: Box, repository: Repository) -> None:
        repository.git("branch", "-f", "feature")
        done = self.push(box, repository, "feature")
        assert done.status != 0
        assert "refs deploys the branch main, and 'feature' was pushed" in done.all
        assert "feature:main" in done.all

    def test_other_refs_are_refused(self, box: Box, repository: Repository) -> None:
        done = self.push(box, repository, "HEAD:refs/notes/x")
        assert done.status != 0
        assert "only branches and tags can be pushed" in done.all

    def test_tags_are_stored_only(self, box: Box, repository: Repository) -> None:
        repository.git("tag", "-f", "v9")
        done = self.push(box, repository, "v9")
        assert done.status == 0, done
        assert "Tags are stored and not deployed" in done.all
        assert box.json("apps:info", "refs")["release"] == "v1"

    def test_same_revision_again_is_up_to_date(self, box: Box, repository: Repository) -> None:
        done = self.push(box, repository, "main")
        assert done.status == 0 and "Everything up-to-date" in done.all

    def test_unknown_push_option_is_refused(self, box: Box, repository: Repository) -> None:
        repository.commit({"note": "a"})
        done = self.push(box, repository, "main", "-o", "skip-everything")
        assert done.status != 0
        assert "unknown push option 'skip-everything'" in done.all and "Known: skip-deploy" in done.all

    def test_skip_deploy_stores_the_branch_only(self, box: Box, repository: Repository) -> None:
        repository.commit(app(body="stored"))
        done = self.push(box, repository, "main", "-o", "skip-deploy")
        assert done.status == 0 and "without deploying it" in done.all
        assert box.get("refs").text == "one"

    def test_forced_push_deploys(self, box: Box, repository: Repository) -> None:
        repository.git("reset", "-q", "--soft", "HEAD~1")
        repository.commit(app(body="forced"))
        plain = self.push(box, repository, "main")
        assert plain.status != 0 and "non-fast-forward" in plain.all
        done = self.push(box, repository, "main", "--force")
        assert done.status == 0, done
        assert box.get("refs").text == "forced"


def test_clone_of_what_was_pushed(box: Box, tmp_path: Path) -> None:
    repository = box.repository(app(body="mirror"))
    assert box.push(repository, "mirror").status == 0
    done = run(["git", "clone", "-q", box.remote("mirror"), str(tmp_path / "copy")], env=box.git_environment())
    assert done.status == 0, done
    head = subprocess.run(
        ["git", "-C", str(tmp_path / "copy"), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert head.stdout.strip() == repository.git("rev-parse", "HEAD")
    box.settles()
