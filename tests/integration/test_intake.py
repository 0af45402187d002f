"""Code that comes as an archive, as an image or from another Git server, over real SSH."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.box import Box, Done

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SITE = {"index.html": "from an archive", "sub/page.html": "page"}


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box('[push]\nsync_from = "127.0.0.1/32"\nmax_size = 20000000\n').start()
    try:
        yield box
    finally:
        box.close()


def send(box: Box, app: str, data: bytes) -> Done:
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "git:from-archive", app]
    done = subprocess.run(command, input=data, capture_output=True, timeout=200)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def tar(files: dict[str, str], *entries: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        for entry in entries:
            archive.addfile(entry)
    return buffer.getvalue()


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("pack", "folder"), [(tar, ""), (tar, "blog-1.2/"), (zipped, ""), (lambda files: tar(files, mode="w:xz"), "./")]
)
def test_an_archive_is_deployed(box: Box, pack: Callable[[dict[str, str]], bytes], folder: str) -> None:
    box.ssh("apps:create", "archived")
    done = send(box, "archived", pack({folder + path: text for path, text in SITE.items()}))
    assert done.status == 0, done.out + done.err
    assert "-----> Detecting how to build archived" in done.out and "is live" in done.out
    assert box.get("archived").text == "from an archive"
    assert box.get("archived", "/sub/page").text == "page"
    assert list((box.data / "cache").glob("intake-*")) == []
    box.ssh("apps:destroy", "archived", "--force")


def test_archives_follow_each_other_in_the_history(box: Box) -> None:
    box.ssh("apps:create", "history")
    assert send(box, "history", tar(SITE)).status == 0
    assert send(box, "history", tar({"index.html": "second"})).status == 0
    assert box.get("history").text == "second"
    assert box.get("history", "/sub/page").status == 404
    refused = send(box, "history", tar({"nothing.xyz": "third"}))
    assert refused.status != 0 and "no buildpack recognises this repository" in refused.err
    assert box.get("history").text == "second"
    repository = next((box.data / "repositories").glob("*.git"))
    log = subprocess.run(["git", "-C", str(repository), "rev-list", "--count", "main"], capture_output=True, text=True)
    assert log.stdout == "2\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tar({"../x": "1"}), "leaves its folder"),
        (tar({"/etc/x": "1"}), "is not a plain relative path"),
        (tar({"a/../../x": "1"}), "leaves its folder"),
        (tar({"a\\b": "1"}), "is not a plain relative path"),
        (tar({".git/hooks/x": "1"}), "is Git's own"),
        (tar({"a/.GIT/config": "1"}), "is Git's own"),
        (tar({"x" * 5000: "1"}), "is longer than 4096 bytes"),
        (tar({"a": "1", "A": "2"}), "twice"),
        (tar({"a": "1"}, special("l", tarfile.SYMTYPE, "/etc/passwd")), "points outside the archive"),
        (tar({"a": "1"}, special("d/l", tarfile.SYMTYPE, "../../x")), "points outside the archive"),
        (tar({"a": "1"}, special("h", tarfile.LNKTYPE, "a")), "a hard link"),
        (tar({"a": "1"}, special("p", tarfile.FIFOTYPE)), "a device, pipe or socket"),
        (tar({"a": "1"}, special("p", tarfile.CHRTYPE)), "a device, pipe or socket"),
        (tar({}), "holds no files"),
        (b"", "the archive cannot be read"),
        (b"no archive at all", "the archive cannot be read"),
        (tar(SITE)[:-40], "the archive cannot be read"),
        (zipped({"../x": "1"}), "leaves its folder"),
        (os.urandom(21_000_000), "larger than 20000000 bytes"),
    ],
)
def test_a_hostile_archive_is_refused_whole(box: Box, data: bytes, said: str) -> None:
    box.ssh("apps:create", "hostile")
    refused = send(box, "hostile", data)
    assert refused.status != 0 and said in refused.err, refused.err
    assert box.json("builds", "hostile") == []
    assert list((box.data / "cache").glob("intake-*")) == []


def test_a_bomb_is_refused(box: Box) -> None:
    entry = tarfile.TarInfo("zeros")
    entry.size = 9 * 1024**3
    refused = send(box, "hostile", entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    assert (refused.status != 0 and "cannot be read" in refused.err) or "unpacks to more than 8 GiB" in refused.err


def test_a_ready_image_is_deployed(box: Box) -> None:
    repository = box.repository({"Dockerfile": "FROM paasd/static:bookworm\nEXPOSE 80\n", "index.html": ""})
    assert repository
    box.ssh("apps:create", "image")
    assert "is not the name of an image" in box.ssh("git:from-image", "image", "A;b").err
    refused = box.ssh("git:from-image", "image", "localhost:1/none:1", timeout=200)
    assert refused.status != 0 and "could not get that image" in refused.err, refused.err
    tag = "paasd-test-intake:1"
    dockerfile = (
        "FROM paasd/python:3.13\nWORKDIR /srv\nRUN echo ready > index.html\nUSER 10001\nEXPOSE 8099\n"
        'CMD ["python3", "-m", "http.server", "8099"]\n'
    )
    built = subprocess.run(
        ["docker", "build", "-q", "-t", tag, "-"], input=dockerfile, text=True, capture_output=True,
        env={**os.environ, "DOCKER_BUILDKIT": "0"}, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    try:
        done = box.ssh("git:from-image", "image", tag)
        assert done.status == 0, done.err
        assert box.get("image").text == "ready\n"
    finally:
        box.ssh("apps:destroy", "image", "--force")
        subprocess.run(["docker", "rmi", "-f", tag], capture_output=True, timeout=60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A Git server of the simplest kind: files over http."""
    handler = lambda *args: _Quiet(*args, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_a_git_server_is_followed(box: Box, server: tuple[str, Path]) -> None:
    url, folder = server
    repository = box.repository({"index.html": "synced"})
    repository.git("branch", "other")

    def publish() -> None:
        bare = folder / "site.git"
        repository.git("push", "-q", "--mirror", str(bare))
        subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)

    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder / "site.git")], check=True)
    publish()
    box.ssh("apps:create", "synced")
    done = box.ssh("git:sync", "synced", f"{url}/site.git")
    assert done.status == 0, done.err
    assert box.get("synced").text == "synced"
    repository.commit({"index.html": "newer"})
    publish()
    assert box.ssh("git:sync", "synced", f"{url}/site.git", "main").status == 0
    assert box.get("synced").text == "newer"
    wrong = box.ssh("git:sync", "synced", f"{url}/site.git", "none")
    assert wrong.status != 0 and "couldn't find remote ref" in wrong.err
    assert "secret" not in box.ssh("git:sync", "synced", f"{url.replace('//', '//u:secret@')}/none.git").err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc", "is not an http(s) address"),
        ("ext::sh", "is not an http(s) address"),
        ("-- -o=x", "is not an http(s) address"),
        ("ssh://git@example.org/x.git", "is not an http(s) address"),
        ("http://169.254.169.254/x.git", "does not fetch from there"),
        ("http://10.201.0.2/x.git", "does not fetch from there"),
        ("http://[::1]/x.git", "does not fetch from there"),
        ("http://127.0.0.2/x.git", "does not fetch from there"),
        ("https://nowhere.invalid/x.git", "has no address"),
    ],
)
def test_what_may_not_be_fetched(box: Box, url: str, said: str) -> None:
    box.ssh("apps:create", "fetching")
    refused = box.ssh("git:sync", "fetching", *[f"'{word}'" for word in url.split(" ")])
    assert refused.status != 0 and said in refused.err, refused.err


def test_what_a_killed_daemon_left_is_swept(box: Box) -> None:
    left = box.data / "cache" / "intake-left"
    left.mkdir(parents=True)
    (left / "archive").write_text("x")
    box.kill()
    box.start()
    assert not left.exists()
