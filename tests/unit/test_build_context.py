"""Build contexts: tars put together and filtered as streams, and Docker's rules of .dockerignore."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paasd.build.context import filtered, joined, repository_context
from paasd.build.dockerignore import DockerIgnore
from paasd.errors import SourceRejected


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def collect(stream: AsyncIterator[bytes]) -> dict[str, str | None]:
    data = b"".join([piece async for piece in stream])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found: dict[str, str | None] = {}
        for entry in tar:
            file = tar.extractfile(entry) if entry.isfile() else None
            found[entry.name] = file.read().decode() if file else None
        return found


def archive(files: dict[str, str], form: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


LONG = "deep/" * 30 + "ünïcode-" + "x" * 150
FILES = {"keep": "1", "drop": "2" * 5000, LONG: "3", f"drop-{LONG}": "4", "empty": ""}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("size", [7, 512, 10_000_000])
async def test_entries_are_dropped_with_their_long_names(form: int, size: int) -> None:
    stream = filtered(pieces(archive(FILES, form), size), lambda path: not path.startswith("drop"))
    assert await collect(stream) == {"keep": "1", LONG: "3", "empty": ""}


async def test_a_real_git_archive_is_filtered(tmp_path: Path) -> None:
    for path, text in {"a.txt": "a", f"{'d' * 60}/{'e' * 60}/f.txt": "f", "x/y": "y"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "link").symlink_to("a.txt")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    data = subprocess.run([*git, "archive", "--format=tar", "HEAD"], check=True, capture_output=True).stdout
    stream = filtered(pieces(data, 1000), lambda path: path not in ("x", "x/y"))
    assert await collect(stream) == {
        "a.txt": "a",
        "d" * 60: None,
        f"{'d' * 60}/{'e' * 60}": None,
        f"{'d' * 60}/{'e' * 60}/f.txt": "f",
        "link": None,
    }


async def test_our_files_come_before_the_checkout() -> None:
    code = archive({"app/main.py": "code"}, tarfile.PAX_FORMAT)
    stream = joined({"Dockerfile": "FROM x\n", "é.conf": "ü"}, pieces(code, 100))
    assert await collect(stream) == {"Dockerfile": "FROM x\n", "é.conf": "ü", "app/main.py": "code"}


@pytest.mark.parametrize("broken", [b"\x01" * 512, archive({"a": "1"}, tarfile.PAX_FORMAT)[:124] + b"z" * 388])
async def test_a_broken_archive_is_refused(broken: bytes) -> None:
    with pytest.raises(SourceRejected):
        await collect(filtered(pieces(broken, 512), lambda path: True))


class Repository:
    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self._files)

    def read(self, path: str) -> str | None:
        return self._files.get(path)

    def context(self) -> AsyncIterator[bytes]:
        data = archive(self._files, tarfile.PAX_FORMAT)
        return repository_context(self, pieces(data, 999), "Dockerfile")


async def test_a_repositorys_context_is_pinned_and_cleaned() -> None:
    repository = Repository(
        {
            "Dockerfile": "# syntax=docker/dockerfile:1\nFROM a\n",
            ".dockerignore": "*.log\n.git\nDockerfile\n",
            "a.log": "x",
            "src/b.log": "kept",
            "main.py": "code",
        }
    )
    assert await collect(repository.context()) == {
        "Dockerfile": "FROM a\n",
        ".dockerignore": "*.log\n.git\nDockerfile\n",
        "src/b.log": "kept",
        "main.py": "code",
    }


async def test_a_foreign_frontend_is_refused_in_a_context() -> None:
    with pytest.raises(SourceRejected, match="line 1"):
        await collect(Repository({"Dockerfile": "#syntax=evil/x\nFROM a\n"}).context())


@pytest.mark.parametrize(
    ("text", "kept", "dropped"),
    [
        ("", ["a", ".git/x"], []),
        ("# *\n\n  \n", ["a"], []),
        ("node_modules", ["src/node_modules/x"], ["node_modules", "node_modules/a/b"]),
        ("/build/", ["src/build/x"], ["build", "build/x"]),
        ("*.md", ["docs/a.md"], ["a.md"]),
        ("**/*.md", ["a.mdx"], ["a.md", "docs/a.md", "docs/deep/a.md"]),
        ("**", [], ["a", "b/c"]),
        ("docs/**", ["docs", "doc/a"], ["docs/a", "docs/a/b"]),
        ("a/**/z", ["a/b", "z"], ["a/z", "a/b/z", "a/b/c/z"]),
        ("*\n!src\n!README.md", ["src/a/b", "README.md"], ["other", "docs/README.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["README.md", "README-a.md"], ["a.md", "README-secret.md"]),
        ("!a\na", [], ["a"]),
        ("te?t\n[a-c].x\n[^a]y", ["teest", "d.x", "ay"], ["test", "b.x", "by"]),
        ("a\\*b", ["axb"], ["a*b"]),
        ("./x/../y", ["x"], ["y"]),
        ("sp ace ", ["sp"], ["sp ace"]),
        ("a.b", ["axb"], ["a.b"]),
        ("[", ["a"], []),
        ("[^]x]", ["a"], []),
    ],
)
def test_dockerignore_has_dockers_rules(text: str, kept: list[str], dropped: list[str]) -> None:
    rules = DockerIgnore(text)
    assert [path for path in kept + dropped if rules.keeps(path)] == kept
