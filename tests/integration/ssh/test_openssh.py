"""What only the OpenSSH transport can get wrong: sshd's life, and the socket that its children speak to."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ALICE, Client, Doors, eventually

from paasd.config import SshConfig
from paasd.errors import InvalidInput
from paasd.push import bridge
from paasd.push.openssh import OpenSsh, check_owned_by_root
from tests.ports import free_port

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("sshd", path="/usr/sbin"), reason="needs root and sshd"
)


@pytest.fixture
async def openssh(home: Path, doors: Doors) -> AsyncIterator[OpenSsh]:
    front = OpenSsh(SshConfig(port=free_port(), address="127.0.0.1"), home / "keys", home / "run", doors)
    await front.start()
    yield front
    await front.stop(0)


@pytest.fixture
def client(home: Path, openssh: OpenSsh, doors: Doors) -> Client:
    client = Client(home, openssh.port, openssh.user)
    doors.add(client.key("alice").with_suffix(".pub"), ALICE, "key-alice")
    return client


async def test_sshd_that_dies_is_started_again_and_sessions_go_on(openssh: OpenSsh, client: Client) -> None:
    process = await asyncio.create_subprocess_exec(*client.argv("nap", "2"), stdout=subprocess.PIPE)
    assert process.stdout and await process.stdout.readline() == b"napping\n"
    os.kill(int((client.home / "run" / "sshd.pid").read_text()), signal.SIGKILL)
    await eventually(lambda: openssh.starts == 2)
    for _ in range(100):
        if (await client.run("whoami"))[1] == b"alice\n":
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("sshd did not come back")
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out) == (0, b"rested\n")


async def test_the_sshd_of_a_killed_daemon_gives_way(openssh: OpenSsh, client: Client, doors: Doors) -> None:
    # As after kill -9: nobody ends the first daemon's sshd before the second starts.
    assert openssh._supervisor
    first = int((client.home / "run" / "sshd.pid").read_text())
    second = OpenSsh(openssh._config, client.home / "keys", client.home / "run", doors)
    config = (client.home / "run" / "sshd_config").read_text()
    await asyncio.to_thread(second._end_orphan)
    await eventually(lambda: not Path(f"/proc/{first}").exists())
    await eventually(lambda: openssh.starts == 2)
    assert (client.home / "run" / "sshd_config").read_text() == config


async def test_nobody_else_may_speak_for_sshd(openssh: OpenSsh, client: Client) -> None:
    path = client.home / "run" / "ssh.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    client.home.chmod(0o755)
    path.chmod(0o666)
    key = (client.home / "alice.pub").read_text().split()[1]
    script = f"""
import os, socket, sys
os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect({str(path)!r})
try:
    s.sendall(b'{{"ask": true, "type": "ssh-ed25519", "key": "{key}"}}\\n')
    sys.exit(len(s.recv(1000)))
except ConnectionError:
    sys.exit(0)
"""
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await asyncio.wait_for(stranger.wait(), 30) == 0


async def test_junk_on_the_socket_does_no_harm(openssh: OpenSsh, client: Client) -> None:
    for junk in (b"", b"{}\n", b"[]\n", b"\xff\n", b'{"ask": 1, "type": 5, "key": "%"}\n', b"{" * 700_000):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(client.home / "run" / "ssh.sock"))
            try:
                await asyncio.to_thread(sock.sendall, junk)
            except OSError:
                pass
    assert (await client.run("whoami"))[1] == b"alice\n"


async def test_the_bridge_says_when_the_daemon_is_away(home: Path) -> None:
    argv = [sys.executable, "-I", "-S", bridge.__file__, "session", str(home / "none.sock"), "ssh-ed25519", "AAAA"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True)
    assert done.returncode == 1 and done.stderr == b" !     paasd is not running; try again in a moment\n"


def test_what_sshd_runs_must_belong_to_root(home: Path) -> None:
    check_owned_by_root(Path("/usr/bin"))
    with pytest.raises(InvalidInput, match="can be changed by others than root"):
        check_owned_by_root(home)
