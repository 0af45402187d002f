"""A real SSH front, real clients, real repositories; the doors behind it are small but honest."""

from __future__ import annotations

import asyncio
import base64
import getpass
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from paasd.config import SshConfig
from paasd.errors import NotFound, PaasdError
from paasd.forward import Forward
from paasd.models import Actor
from paasd.push.openssh import OpenSsh
from paasd.push.session import GitService, Session
from paasd.push.ssh import EmbeddedSsh
from tests.ports import free_port

ALICE = Actor("org", "alice", "alice")
BOB = Actor("org", "bob", "bob")


class Doors:
    """Users by key, repositories in a directory, and a few commands that show what a session is."""

    def __init__(self, repositories: Path) -> None:
        self.repositories = repositories
        self.keys: dict[tuple[str, bytes], tuple[Actor, str]] = {}
        self.asked: list[str] = []
        self.sessions: list[Session] = []
        self.hold = asyncio.Event()
        self.refusals: list[tuple[str, str]] = []
        self.echo: tuple[str, int] | None = None
        self.forwards = 0
        self.forwarding: Callable[[], None] = lambda: None
        """Called while a connection is being forwarded; blocks the loop."""

    def add(self, public: Path, actor: Actor, key_id: str) -> None:
        kind, blob, *_ = public.read_text().split()
        self.keys[kind, base64.b64decode(blob)] = (actor, key_id)

    def remove(self, key_id: str) -> None:
        self.keys = {key: value for key, value in self.keys.items() if value[1] != key_id}

    async def authenticate(self, key_type: str, key_blob: bytes) -> tuple[Actor, str] | None:
        self.asked.append(key_type)
        return self.keys.get((key_type, key_blob))

    async def git(self, session: Session, service: str, app: str) -> GitService:
        self.sessions.append(session)
        if not (self.repositories / app).is_dir():
            raise NotFound(f"no app {app}", hint="Create it with: apps:create")
        return GitService(self.repositories / app, {})

    async def forward(self, actor: Actor, host: str, port: int) -> Forward:
        """`echo:7` is what the test offers."""
        if (host, port) != ("echo", 7) or self.echo is None:
            raise NotFound(f"no app {host}:{port}")
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self.echo)
        self.forwards += 1
        self.forwarding()
        return Forward(connection, self._forward_ended)

    def _forward_ended(self) -> None:
        self.forwards -= 1

    async def refused(self, session: Session, error: PaasdError) -> None:
        self.refusals.append((session.command, error.detail))

    def run_command(self, session: Session, argv: Sequence[str]) -> int:
        self.sessions.append(session)
        return Commands(session)(argv)


class Commands:
    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, argv: Sequence[str]) -> int:
        run = getattr(self, f"do_{argv[0].replace(':', '_')}", None)
        if run is None:
            os.write(self.session.stderr, b" !     unknown command\n")
            return 127
        return run(*argv[1:])

    def do_whoami(self) -> int:
        os.write(self.session.stdout, self.session.actor.name.encode() + b"\n")
        return 0

    def do_exit(self, status: str) -> int:
        return int(status)

    def do_both(self) -> int:
        os.write(self.session.stdout, b"to stdout\n")
        os.write(self.session.stderr, b"to stderr\n")
        return 0

    def do_cat(self) -> int:
        while data := os.read(self.session.stdin, 65536):
            view = memoryview(data)
            while view:
                view = view[os.write(self.session.stdout, view) :]
        return 0

    def do_args(self, *args: str) -> int:
        os.write(self.session.stdout, repr(args).encode())
        return 0

    def do_window(self) -> int:
        """Prints the window's size now, and again once it changed."""
        for _ in range(2):
            size = os.get_terminal_size(self.session.stdout)
            terminal = self.session.terminal
            assert terminal and os.isatty(self.session.stdin)
            text = f"{size.columns}x{size.lines} {terminal.columns}x{terminal.rows} {terminal.name}\n"
            os.write(self.session.stdout, text.encode())
            for _ in range(1000):
                if self.session.resized.is_set() or self.session.gone.is_set():
                    break
                wait_a_moment()
        return 0

    def do_follow(self) -> int:
        """Like logs -t: ends when the client goes."""
        os.write(self.session.stdout, b"following\n")
        ends = []
        self.session.when_gone(lambda: ends.append(1))
        while not ends:
            wait_a_moment()
        return 130

    def do_nap(self, seconds: str) -> int:
        os.write(self.session.stdout, b"napping\n")
        for _ in range(int(float(seconds) / 0.01)):
            wait_a_moment()
        os.write(self.session.stdout, b"rested\n")
        return 0


def wait_a_moment() -> None:
    import time

    time.sleep(0.01)


class Client:
    """The real `ssh` and `git` with one key."""

    def __init__(self, home: Path, port: int, user: str) -> None:
        self.home, self.port, self.user = home, port, user

    def key(self, name: str, kind: str = "ed25519") -> Path:
        path = self.home / name
        if not path.exists():
            bits = ["-b", "2048"] if kind == "rsa" else []
            subprocess.run(["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-f", path], check=True)
        return path

    def options(self, *keys: str) -> list[str]:
        identity = [option for key in keys for option in ("-i", str(self.home / key))]
        return [
            *("-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.home}/known_hosts"),
            *("-o", "LogLevel=ERROR", *identity),
        ]

    def argv(self, *command: str, key: str | Sequence[str] = "alice", options: Sequence[str] = ()) -> list[str]:
        keys = [key] if isinstance(key, str) else key
        return ["ssh", *self.options(*keys), "-p", str(self.port), *options, f"{self.user}@127.0.0.1", *command]

    async def run(
        self, *command: str, key: str | Sequence[str] = "alice", options: Sequence[str] = (), data: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        return await finish(self.argv(*command, key=key, options=options), data)

    async def git(self, *argv: str, cwd: Path | None = None, key: str = "alice") -> tuple[int, bytes, bytes]:
        return await finish(["git", *argv], b"", cwd=cwd, env=self.git_environment(key))

    def git_environment(self, key: str = "alice") -> dict[str, str]:
        ssh = " ".join(["ssh", *self.options(key)])
        author = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**os.environ, **author, "GIT_SSH_COMMAND": ssh, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def url(self, app: str) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}/{app}"


async def finish(argv: Sequence[str], data: bytes = b"", **options: object) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    out, err = await asyncio.wait_for(process.communicate(data), 60)
    return process.returncode or 0, out, err


@pytest.fixture
def home() -> Iterator[Path]:
    # Not below pytest's directory: Unix socket paths are short.
    path = Path(tempfile.mkdtemp(prefix="pd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def doors(home: Path) -> Doors:
    (home / "repositories").mkdir()
    return Doors(home / "repositories")


@pytest.fixture
def config() -> SshConfig:
    return SshConfig(port=0, address="127.0.0.1")


@pytest.fixture
async def embedded(home: Path, doors: Doors, config: SshConfig) -> AsyncIterator[EmbeddedSsh]:
    server = EmbeddedSsh(config, home / "keys", doors)
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture(params=["embedded", "openssh"])
async def server(
    request: pytest.FixtureRequest, home: Path, doors: Doors, config: SshConfig
) -> AsyncIterator[EmbeddedSsh | OpenSsh]:
    """The front over each transport."""
    if request.param == "embedded":
        front: EmbeddedSsh | OpenSsh = EmbeddedSsh(config, home / "keys", doors)
    else:
        if os.geteuid() or not shutil.which("sshd", path="/usr/sbin:/usr/bin"):
            pytest.skip("the OpenSSH transport needs root and sshd")
        port = free_port()
        front = OpenSsh(SshConfig(port=port, address="127.0.0.1"), home / "keys", home / "run", doors)
    await front.start()
    yield front
    await front.stop(0)


@pytest.fixture
def client(home: Path, server: EmbeddedSsh | OpenSsh, doors: Doors) -> Client:
    """A client of `server`, with alice's key known to it."""
    return _client(home, server, doors)


@pytest.fixture
def embedded_client(home: Path, embedded: EmbeddedSsh, doors: Doors) -> Client:
    return _client(home, embedded, doors)


def _client(home: Path, server: EmbeddedSsh | OpenSsh, doors: Doors) -> Client:
    user = getpass.getuser() if isinstance(server, EmbeddedSsh) else server.user
    client = Client(home, server.port, user)
    doors.add(client.key("alice").with_suffix(".pub"), ALICE, "key-alice")
    return client


@pytest.fixture
def repository(doors: Doors) -> Path:
    path = doors.repositories / "app"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)
    return path


@pytest.fixture
def work_tree(home: Path) -> Path:
    path = home / "work"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "init", "-q", "-b", "main", path], check=True, env=env)
    (path / "file").write_text("hello\n")
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "add", "."], cwd=path, check=True, env=env)
    subprocess.run(["git", *author, "commit", "-qm", "first"], cwd=path, check=True, env=env)
    return path


async def eventually(condition: object, seconds: float = 20.0) -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def window_bytes(columns: int, rows: int) -> bytes:
    return struct.pack("HHHH", rows, columns, 0, 0)


PYTHON = sys.executable
