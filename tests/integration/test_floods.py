"""Too much of something: output, bytes, followers that leave. The daemon's memory and the disk stay bounded."""

from __future__ import annotations

import secrets
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psutil
import pytest

from tests.apps import app
from tests.box import Box, docker, eventually

pytestmark = pytest.mark.engine
_MIB = 1024**2
_CONTROLS = "\\x1b]0;title\\x07\\x1b[2J\\x1b[31mred\\x1b[0m\\x08\\x9b1A"


def daemon(box: Box) -> psutil.Process:
    assert box.process is not None
    return psutil.Process(box.process.pid)


def test_release_task_that_floods(box: Box) -> None:
    """32 MiB in one line, then a hundred thousand lines: all is read, none of it is kept in memory, and a pusher who
    cannot keep up is told so."""
    task = "import sys\nfor _ in range(512): sys.stdout.write('x' * 65536)\nprint()\nfor n in range(100000): print(n)\n"
    files = app(Procfile="web: python3 -u app.py\nrelease: python3 flood.py\n", flood__py=task)
    repository = box.repository(files)
    before = daemon(box).memory_info().rss
    done = box.push(repository, "flooder", timeout=110)
    assert done.status == 0, done.all[-2000:]
    longest = max(len(line) for line in done.all.splitlines())
    assert 16 * 1024 <= longest < 32 * 1024
    assert "99999" in done.all or "some lines are left out" in done.all
    assert "is live" in done.all
    assert daemon(box).memory_info().rss - before < 100 * _MIB
    logs = sum(path.stat().st_size for path in (box.data / "logs").rglob("*") if path.is_file())
    assert logs < 12 * _MIB * len(box.json("apps:list"))


def test_output_of_an_app_cannot_steer_the_terminal(box: Box) -> None:
    evil = f"print('{_CONTROLS}', flush=True)\nserve()"
    assert box.push(box.repository(app(evil)), "steerer").status == 0
    plain = eventually(lambda: (lines := box.ssh("logs", "steerer", "-q").out) and lines)
    assert plain.splitlines()[0] == "\x1b[31mred\x1b[0m1A\x1b[0m"
    failing = app(
        Procfile="web: python3 -u app.py\nrelease: python3 fail.py\n", fail__py=evil + "\nraise SystemExit(3)"
    )
    failing["fail.py"] = f"print('{_CONTROLS}')\nraise SystemExit(3)\n"
    failing["Dockerfile"] += "RUN printf 'broken \\033[2J\\033]0;t\\007 here' && false\n"
    repository = box.repository(failing)
    done = box.push(repository, "steerer", "+main")
    assert done.status != 0
    for words in (["builds"], ["builds:log"], ["deployments"], ["report"], ["releases:info", "v1"], ["events"]):
        shown = box.ssh(words[0], "steerer", *words[1:])
        assert shown.status == 0, shown
        assert all(c in "\n\t" or c.isprintable() for c in shown.all), (words, ascii(shown.all))
    assert all(b == 0x1B or b >= 0x20 or b in b"\n\t\r" for b in done.all.encode()), ascii(done.all)
    assert "\x1b[2J" not in done.all and "\x1b]" not in done.all
    assert box.json("builds", "steerer")[0]["status"] == "failed"


@pytest.mark.parametrize("chatty", [True, False])
def test_a_follower_that_is_killed_ends_on_the_server(box: Box, chatty: bool) -> None:
    name = "chatty" if chatty else "quiet"
    main = "threading.Thread(target=serve).start()\nprint('begin', flush=True)\n"
    main += "while True: time.sleep(0.05); print('line', flush=True)\n" if chatty else ""
    assert box.push(box.repository(app(main)), name).status == 0
    assert box.ssh("logs", name).status == 0
    before = eventually(lambda: steady(box))
    command = [*box.ssh_command(), "-p", str(box.ssh_port), "paasd@127.0.0.1", "logs", name, "-t"]
    followers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    try:
        for follower in followers:
            assert (follower.stdout is not None and "begin" in follower.stdout.readline()) or chatty
        assert daemon(box).num_fds() >= before + 5 * 3
    finally:
        for follower in followers:
            follower.kill()
            follower.communicate(timeout=20)
    eventually(lambda: daemon(box).num_fds() <= before, 60)


def steady(box: Box) -> int:
    """Open files of the daemon, once they do not change any more."""
    seen = [daemon(box).num_fds()]
    for _ in range(8):
        time.sleep(0.25)
        seen.append(daemon(box).num_fds())
    return seen[0] if len(set(seen)) == 1 else 0


def test_foreign_tags_of_our_images_stay(new_box: Callable[..., Box]) -> None:
    box = new_box("[run]\ndrain = 0.5\n[keep]\nreleases = 1\n").start()
    foreign = f"foreign{secrets.token_hex(3)}/copy"
    repository = box.repository(app(body="one"))
    assert box.push(repository, "tagged").status == 0
    old = box.json("releases:info", "tagged", "v1")["image"]
    docker("POST", f"/images/{old}/tag?repo={quote(foreign, safe='')}&tag=keep")
    try:
        repository.commit(app(body="two"))
        assert box.push(repository, "tagged").status == 0
        eventually(lambda: box.ssh("cleanup").status == 0 and "Id" not in docker("GET", f"/images/{old}/json"), 60)
        assert "Id" in docker("GET", f"/images/{foreign}:keep/json")
    finally:
        docker("DELETE", f"/images/{foreign}:keep")


def giant_push(old: str, new: str, ref: str, size: int) -> Iterator[bytes]:
    """What a client says to git-receive-pack that pushes one file of `size` random bytes and much else: a file is read
    as it comes, so that all of this is stored blocks of a deflate stream."""
    line = f"{old} {new} {ref}\0 report-status\n".encode()
    yield f"{len(line) + 4:04x}".encode() + line + b"0000" + b"PACK" + struct.pack(">II", 2, 1000)
    header, rest = bytearray([0x30 | (size & 15)]), size >> 4
    while rest:
        header[-1] |= 0x80
        header.append(rest & 0x7F)
        rest >>= 7
    yield bytes(header) + b"\x78\x01"
    block = b"\0" + struct.pack("<HH", 65535, 0) + secrets.token_bytes(65535)
    for _ in range(size // 65535 // 16):
        yield block * 16


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_push_of_more_than_the_default_limit(box: Box) -> None:
    """The default of 2 GiB with that many bytes over real SSH: slow, because all of them are encrypted on the way."""
    assert box.ssh("apps:create", "giant").status == 0
    repositories = box.data / "repositories"
    before = sorted(repositories.rglob("*"))
    limit, sent, largest = 2 * 1024**3, 0, 0
    cipher = ["-o", "Ciphers=aes128-gcm@openssh.com,aes128-ctr"]
    command = [*box.ssh_command(), *cipher, "-p", str(box.ssh_port), "paasd@127.0.0.1", "git-receive-pack 'giant'"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdin is not None
    try:
        for piece in giant_push("0" * 40, secrets.token_hex(20), "refs/heads/main", 3 * 1024**3):
            client.stdin.write(piece)
            sent += len(piece)
            if sent % (64 * len(piece)) < len(piece):
                largest = max(largest, *(_memory(process) for process in [daemon(box), *daemon(box).children(True)]))
    except BrokenPipeError:
        pass
    finally:
        client.stdin = None
        out, err = client.communicate(timeout=60)
    text = (out + err).decode(errors="replace")
    assert client.returncode != 0 or "unpack" in text
    assert "pack exceeds maximum allowed size" in text, text[-500:]
    assert limit <= sent < limit + 64 * _MIB
    assert largest < 400 * _MIB
    eventually(lambda: sorted(repositories.rglob("*")) == before, 30)
    assert box.push(box.repository(app()), "giant").status == 0


def _memory(process: psutil.Process) -> int:
    """Without what it maps from files, such as a pack."""
    try:
        memory = process.memory_info()
        return int(memory.rss - memory.shared)
    except psutil.NoSuchProcess:
        return 0
