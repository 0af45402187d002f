"""Data that outlives releases: volumes, where they are mounted, snapshots, and what must never lose any."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps import app
from tests.box import Box, docker, eventually

pytestmark = pytest.mark.engine

# Every GET adds a line to a file in the volume and answers with all of them.
_NOTES = """
def answer(self):
    try:
        if self.path != "/read":
            with open("/app/data/notes", "a") as file:
                file.write(self.path + " ")
        body = open("/app/data/notes").read().encode()
    except OSError as error:
        body = type(error).__name__.encode()
    self.send_response(200)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)
Handler.do_GET = answer
serve()
"""
_CHECK = '{"healthchecks": {"web": [{"path": "/read"}]}}'


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box("[run]\ndrain = 0.5\nstream_drain = 0.5\nstop_timeout = 2\n").start()
    yield box
    box.close()
    for volume in volumes(box):
        docker("DELETE", f"/volumes/{volume}")


def volumes(box: Box) -> list[str]:
    found = docker("GET", "/volumes")["Volumes"] or []
    return sorted(v["Name"] for v in found if (v["Labels"] or {}).get("paasd.instance") == box.label)


def ok(box: Box, *words: str) -> str:
    done = box.ssh(*words)
    assert done.status == 0, (words, done.all)
    return done.out


def refused(box: Box, said: str, *words: str) -> None:
    done = box.ssh(*words)
    assert done.status == 1 and said in done.err, (words, done.all)


def notes(**more: str) -> dict[str, str]:
    return app(_NOTES, app__json=_CHECK, **more)


def test_data_outlives_releases_instances_and_the_app(box: Box) -> None:
    repository = box.repository(notes())
    ok(box, "apps:create", "notes")
    ok(box, "storage:create", "pages", "--app", "notes", "--quota", "1g")
    assert "from the next deployment on" in ok(box, "storage:mount", "notes", "pages", "/app/data")
    done = box.push(repository, "notes")
    assert done.status == 0, done.all
    assert box.get("notes", "/one").text == "/one "
    repository.commit({"more": "code"})
    assert box.push(repository, "notes").status == 0
    assert box.get("notes", "/two").text == "/one /two "
    ok(box, "ps:scale", "notes", "web=2")
    ok(box, "ps:restart", "notes")
    ok(box, "rollback", "notes")
    assert box.get("notes", "/read").text == "/one /two "
    # One-off commands and scripts see it too.
    assert ok(box, "run", "notes", "cat", "/app/data/notes") == "/one /two "
    listed = box.json("storage:list")
    assert [(v["name"], v["apps"], v["over_quota"]) for v in listed] == [("pages", ["notes"], False)]
    assert listed[0]["size"] > 0
    # An instance that somebody removed comes back with it.
    for container in box.containers():
        docker("DELETE", f"/containers/{container['Id']}?force=1")
    eventually(lambda: box.get("notes", "/read").text == "/one /two ")

    refused(box, "is mounted by notes", "storage:destroy", "pages", "--force")
    ok(box, "apps:destroy", "notes", "--force")
    assert len(volumes(box)) == 1
    assert box.push(repository, "notes", "main").status == 0
    assert box.get("notes", "/read").text == "FileNotFoundError"
    ok(box, "storage:mount", "notes", "pages", "/app/data/")
    ok(box, "ps:restart", "notes")
    assert box.get("notes", "/three").text == "/one /two /three "


def test_snapshots_go_back(box: Box) -> None:
    before = box.get("notes", "/read").text
    taken = ok(box, "storage:snapshot", "pages")
    name = box.json("storage:info", "pages")["snapshots"][0]["name"]
    assert f"storage:restore pages {name}" in taken
    assert box.get("notes", "/wrong").text != before
    old = volumes(box)
    eventually(lambda: time.strftime("%Y%m%d-%H%M%S", time.gmtime()) > name)  # snapshots are named by the second
    ok(box, "storage:snapshot", "pages")
    ok(box, "storage:restore", "pages", name, "--force")
    assert box.get("notes", "/read").text == before
    assert box.get("notes", "/right").text == f"{before}/right "
    eventually(lambda: len(volumes(box)) == 1 and volumes(box) != old, 60)
    refused(box, "has no snapshot '20200101-000000'", "storage:restore", "pages", "20200101-000000", "--force")
    refused(box, "does not match", "storage:restore", "pages")
    assert box.get("notes", "/read").text == f"{before}/right "
    ok(box, "storage:snapshot-remove", "pages", name)
    assert len(box.json("storage:info", "pages")["snapshots"]) == 1
    assert not carriers(box)


def test_an_empty_volume_never_takes_the_place_of_lost_data(box: Box) -> None:
    ok(box, "ps:stop", "notes")
    eventually(lambda: box.containers() == [])
    docker("DELETE", f"/volumes/{volumes(box)[0]}")
    refused(box, "is gone from the engine, and its data with it", "ps:start", "notes")
    assert volumes(box) == []
    done = ok(box, "storage:restore", "pages", "--force")
    assert "Restoring pages" in done
    ok(box, "ps:start", "notes")
    assert "/wrong" in box.get("notes", "/read").text, "the newest snapshot"
    ok(box, "storage:restore", "pages", "--empty", "--force")
    assert box.get("notes", "/read").text == "FileNotFoundError"
    assert box.get("notes", "/new").text == "/new "


def test_mounts_are_for_a_process_type_or_read_only(box: Box) -> None:
    ok(box, "storage:unmount", "notes", "/app/data")
    ok(box, "storage:mount", "notes", "pages", "/app/data", "--read-only")
    ok(box, "ps:restart", "notes")
    assert box.get("notes", "/read").text == "/new "
    assert box.get("notes", "/more").text == "OSError"
    ok(box, "storage:unmount", "notes", "/app/data")
    ok(box, "storage:mount", "notes", "pages", "/app/data", "--process-type", "worker")
    ok(box, "ps:restart", "notes")
    assert box.get("notes", "/read").text == "FileNotFoundError"
    assert box.json("storage:report", "notes")[0]["process_type"] == "worker"


@pytest.mark.parametrize(
    "path", ["data", "/", "/app", "/etc", "/etc/nginx", "/proc/1", "/app/../etc", "/app/a b", "/app/$(id)", "/usr"]
)
def test_bad_paths_are_refused(box: Box, path: str) -> None:
    ok(box, "storage:create", "spare") if "spare" not in {v["name"] for v in box.json("storage:list")} else None
    done = box.ssh("storage:mount", "notes", "spare", f"'{path}'")
    assert done.status == 1, done.all
    assert "another project" in done.err or "absolute path" in done.err or "hide what the image needs" in done.err


def test_volumes_stay_within_their_project_and_hosts_are_for_administrators(box: Box, tmp_path: Path) -> None:
    refused(box, "belongs to another project", "storage:mount", "notes", "spare", "/app/spare")
    refused(box, "has a volume at /app/data already", "storage:mount", "notes", "pages", "/app/data/deeper")
    refused(box, "already", "storage:create", "pages")
    for path in ("/etc", "/", str(box.data), str(box.data / "keys"), "/proc", "relative", "/srv/../etc"):
        assert box.ssh("storage:create", "bad", "--host-path", path).status == 1, path
    tmp_path.chmod(0o755)
    (tmp_path / "notes").write_text("from the host")
    ok(box, "storage:create", "host", "--host-path", str(tmp_path))
    ok(box, "storage:unmount", "notes", "/app/data")
    ok(box, "storage:mount", "notes", "host", "/app/data", "--read-only")
    ok(box, "ps:restart", "notes")
    assert box.get("notes", "/read").text == "from the host"
    refused(box, "Back that directory up", "storage:snapshot", "host")


def piped(box: Box, words: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*box.ssh_command(), "-p", str(box.ssh_port), f"{box.user}@127.0.0.1", *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def a_tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.gid = len(content), 4242, 4242
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_files_go_in_and_out(box: Box, tmp_path: Path) -> None:
    ok(box, "storage:unmount", "notes", "/app/data")
    ok(box, "storage:mount", "notes", "pages", "/app/data")
    ok(box, "ps:restart", "notes")
    done = piped(box, ["storage:import", "pages"], a_tar(notes=b"imported ", other=b"2"))
    assert done.returncode == 0 and b"2 files are in pages" in done.stdout, done
    assert box.get("notes", "/read").text == "imported ", "while it runs"
    assert box.get("notes", "/more").text == "imported /more ", "it belongs to the app"
    big = os.urandom(3 * 1024**2)
    assert piped(box, ["storage:import", "pages", "/deep/er"], a_tar(big=big)).returncode == 0
    out = piped(box, ["storage:export", "pages"])
    with tarfile.open(fileobj=io.BytesIO(out.stdout)) as archive:
        assert {"notes", "other", "deep/er/big"} <= set(archive.getnames())
        content = archive.extractfile("deep/er/big")
        assert content is not None and content.read() == big
    one = piped(box, ["storage:export", "pages", "/deep/er/big"])
    with tarfile.open(fileobj=io.BytesIO(one.stdout)) as archive:
        assert archive.getnames() == ["big"]
    assert piped(box, ["storage:import", "pages", "/copy"], out.stdout).returncode == 0
    assert ok(box, "run", "notes", "cat", "/app/data/copy/notes") == "imported /more "
    assert not carriers(box)
    # Whoever leaves in the middle leaves nothing behind.
    words = [*box.ssh_command(), "-p", str(box.ssh_port), f"{box.user}@127.0.0.1", "storage:export", "pages"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as leaving:
        assert leaving.stdout is not None and len(leaving.stdout.read(1000)) == 1000
        leaving.kill()
    with subprocess.Popen([*words[:-2], "storage:import", "pages"], stdin=subprocess.PIPE) as leaving:
        assert leaving.stdin is not None
        leaving.stdin.write(a_tar(half=os.urandom(500_000))[:300_000])
        leaving.stdin.flush()
        eventually(lambda: spooled(box))
        leaving.kill()
    eventually(lambda: not carriers(box))
    assert "half" not in str(names_of(piped(box, ["storage:export", "pages"]).stdout))
    assert {"volume.imported", "volume.exported"} <= {event["type"] for event in box.json("events")}


def test_an_import_leaves_directories_that_exist_as_they_are(box: Box) -> None:
    (root,) = (inside(box, name) for name in volumes(box) if (inside(box, name) / "deep").is_dir())
    kept = root / "kept"
    for directory in (kept, kept / "data"):
        directory.mkdir()
        directory.chmod(0o700)
        os.chown(directory, 999, 998)
    before = [_state(path) for path in (root, kept, kept / "data")]
    assert piped(box, ["storage:import", "pages", "/kept/data/new"], a_tar(file=b"1")).returncode == 0
    assert piped(box, ["storage:import", "pages", "/kept/data"], a_tar(file=b"2")).returncode == 0
    assert piped(box, ["storage:import", "pages"], a_tar(file=b"3")).returncode == 0
    assert [_state(path) for path in (root, kept, kept / "data")] == before
    assert _state(kept / "data" / "new") == (0o755, 999, 998), "what is made belongs to whoever owns the place"
    assert time.time() - (kept / "data" / "new").stat().st_mtime < 3600
    shutil.rmtree(kept)
    (root / "file").unlink()


def test_files_and_directories_do_not_take_each_others_place(box: Box) -> None:
    before = piped(box, ["storage:export", "pages"]).stdout
    done = piped(box, ["storage:import", "pages"], a_tar(deep=b"1"))
    assert done.returncode == 1 and b"/deep is a directory in the volume and none in the archive" in done.stderr, done
    link = tarfile.TarInfo("deep")
    link.type, link.linkname = tarfile.SYMTYPE, "copy"
    done = piped(box, ["storage:import", "pages"], tar_of(link))
    assert done.returncode == 1 and b"/deep is a directory" in done.stderr, done
    folder = tarfile.TarInfo("notes")
    folder.type = tarfile.DIRTYPE
    done = piped(box, ["storage:import", "pages"], tar_of(folder))
    assert done.returncode == 1 and b"/notes is no directory in the volume and one in the archive" in done.stderr, done
    assert names_of(piped(box, ["storage:export", "pages"]).stdout) == names_of(before)


def inside(box: Box, volume: str) -> Path:
    return Path(docker("GET", f"/volumes/{volume}")["Mountpoint"])


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mode & 0o7777, found.st_uid, found.st_gid


def tar_of(entry: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry)
    return buffer.getvalue()


def test_hostile_archives_and_paths_write_nothing(box: Box) -> None:
    before = piped(box, ["storage:export", "pages"]).stdout
    for name, said in (("../x", b"leaves its folder"), ("/etc/x", b"no relative path")):
        done = piped(box, ["storage:import", "pages"], a_tar(**{"good": b"1", name: b"2"}))
        assert done.returncode == 1 and said in done.stderr and b"Nothing was written" in done.stderr, done
    done = piped(box, ["storage:import", "pages"], a_tar(good=os.urandom(100_000))[:50_000])
    assert done.returncode == 1, done
    refused(box, "no path inside a volume", "storage:export", "pages", "../../etc")
    refused(box, "has no 'nothing'", "storage:export", "pages", "/nothing")
    ok(box, "run", "notes", "ln", "-s", "/etc", "/app/data/link")
    refused(box, "/link of pages is no directory", "storage:export", "pages", "/link/passwd")
    done = piped(box, ["storage:import", "pages", "/link"], a_tar(passwd=b"1"))
    assert done.returncode == 1 and b"is no directory" in done.stderr, done
    ok(box, "run", "notes", "rm", "/app/data/link")
    refused(box, "Copy files there yourself", "storage:export", "host")
    refused(box, "nothing has mounted spare yet", "storage:export", "spare")
    ok(box, "storage:set", "pages", "--quota", "4m")
    done = piped(box, ["storage:import", "pages"], a_tar(zeros=bytes(30 * 1024**2)))
    assert done.returncode == 1 and b"that there is room for" in done.stderr, done
    ok(box, "storage:set", "pages", "--quota", "none")
    after = piped(box, ["storage:export", "pages"]).stdout
    assert names_of(after) == names_of(before)
    assert not [path for path in box.data.iterdir() if path.name.startswith("tmp")]
    ok(box, "storage:unmount", "notes", "/app/data")
    ok(box, "ps:restart", "notes")


def spooled(box: Box) -> int:
    """Bytes in files of the daemon that have no name: what has arrived of an archive."""
    assert box.process is not None
    found = 0
    for path in Path(f"/proc/{box.process.pid}/fd").iterdir():
        try:
            place = os.readlink(path)
            found += path.stat().st_size if place.startswith(str(box.data)) and place.endswith(" (deleted)") else 0
        except OSError:
            continue  # closed meanwhile
    return found


def carriers(box: Box) -> list[str]:
    return [container["Names"][0] for container in box.containers() if "-carrier-" in container["Names"][0]]


def names_of(data: bytes) -> list[tuple[str, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return sorted((entry.name, entry.size) for entry in archive)


def test_quotas_are_told_and_destroyed_volumes_are_gone(box: Box) -> None:
    ok(box, "storage:set", "pages", "--quota", "1")
    assert next(v for v in box.json("storage:list") if v["name"] == "pages")["over_quota"]
    job = next(j for j in box.json("jobs", "--queue", "cleanup") if j["type"] == "volume.quotas")
    ok(box, "jobs:retry", str(job["id"]))
    eventually(lambda: "volume.over_quota" in {event["type"] for event in box.json("events")})
    ok(box, "storage:destroy", "pages", "--force")
    eventually(lambda: volumes(box) == [], 60)
    assert "pages" not in ok(box, "storage:list")
    assert not list((box.data / "snapshots").iterdir())
    box.settles()
