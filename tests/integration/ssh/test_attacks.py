"""What a hostile client may try, with a valid key and without one (security.md T2, F33 and key confusion)."""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from conftest import ALICE, BOB, Client, Doors, eventually, finish
from paramiko.common import cMSG_SERVICE_REQUEST, cMSG_USERAUTH_REQUEST

from paasd.config import SshConfig
from paasd.push.ssh import EmbeddedSsh

PK_OK, SUCCESS, FAILURE, DISCONNECTED = 60, 52, 51, -1

REFUSED = [
    "/bin/id",
    "git-upload-archive 'app'",
    "git receive-pack 'app'",
    "git-receive-pack '--help'",
    "git-receive-pack '-c core.x=y'",
    "git-receive-pack 'app' ; id",
    "git-receive-pack '../other.git'",
    "git-receive-pack '/etc/passwd'",
    "git-receive-pack 'app.git/../../x'",
    "git-receive-pack 'a'$(touch canary)'",
    "git-lfs-authenticate app upload",
    "x" * 66_000,
    "apps:list \x1b]0;x\x07",
]


@pytest.mark.parametrize("command", REFUSED)
async def test_commands_outside_the_list_end_with_one_line(
    client: Client, doors: Doors, repository: Path, command: str
) -> None:
    status, out, err = await client.run(command)
    assert status == 1 and out == b""
    assert err.startswith(b" !     ") and err.count(b"\n") == 1 and len(err) < 400
    assert not doors.sessions


async def test_git_on_a_terminal_is_refused(client: Client, repository: Path, doors: Doors) -> None:
    status, out, _ = await client.run("git-upload-pack 'app'", options=["-tt"])
    assert status == 1 and b"leave out ssh -t" in out and not doors.sessions


@pytest.mark.parametrize("options", [["-s"], ["-W", "127.0.0.1:22"], ["-N", "-R", "0:127.0.0.1:22"]])
async def test_subsystems_and_forwarding_are_refused(client: Client, doors: Doors, options: list[str]) -> None:
    command = ["sftp"] if options == ["-s"] else []
    more = ["-o", "ExitOnForwardFailure=yes"]
    status, out, _ = await client.run(*command, options=[*more, *options])
    assert status == 255 and out == b"" and not doors.sessions


async def test_a_local_forward_reaches_nothing(client: Client, doors: Doors) -> None:
    canary = socket.create_server(("127.0.0.1", 0))
    canary.setblocking(False)
    path = client.home / "forward"
    target = canary.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *client.argv("follow", options=["-L", f"{path}:127.0.0.1:{target}"]), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout and await process.stdout.readline() == b"following\n"
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    with pytest.raises(BlockingIOError):
        canary.accept()
    canary.close()
    process.kill()
    await process.communicate()


# From here on the embedded server, by a client that speaks the protocol's messages itself.


class Raw:
    """A client that sends authentication messages of its own making."""

    def __init__(self, port: int) -> None:
        self.transport = paramiko.Transport(("127.0.0.1", port))
        self.replies: queue.Queue[int] = queue.Queue()
        for number in (PK_OK, SUCCESS, FAILURE, 6):
            self.transport._handler_table[number] = lambda m, number=number: self.replies.put(number)
        self.transport.start_client(timeout=20)
        message = paramiko.Message()
        message.add_byte(cMSG_SERVICE_REQUEST)
        message.add_string("ssh-userauth")
        self.transport._send_message(message)
        assert self.reply() == 6

    def reply(self) -> int:
        while self.transport.is_active():
            try:
                return self.replies.get(timeout=0.1)
            except queue.Empty:
                continue
        return DISCONNECTED

    def offer(self, algorithm: str, blob: bytes, sign: Callable[[bytes], bytes] | None = None) -> int:
        parts = ["x", "ssh-connection", "publickey"]
        claim = paramiko.Message()
        claim.add_string(self.transport.session_id)
        request = paramiko.Message()
        for message in (claim, request):
            message.add_byte(cMSG_USERAUTH_REQUEST)
            for part in parts:
                message.add_string(part)
            message.add_boolean(message is claim or sign is not None)
            message.add_string(algorithm)
            message.add_string(blob)
        if sign:
            request.add_string(sign(claim.asbytes()))
        self.transport._send_message(request)
        return self.reply()

    def run(self, command: str) -> bytes:
        channel = self.transport.open_session(timeout=20)
        channel.exec_command(command)
        out = channel.makefile("rb").read()
        channel.close()
        return bytes(out)


@pytest.fixture
def raw(embedded: EmbeddedSsh) -> Iterator[Callable[[], Raw]]:
    made: list[Raw] = []

    def connect() -> Raw:
        made.append(Raw(embedded.port))
        return made[-1]

    yield connect
    for client in made:
        client.transport.close()


def signer(key: paramiko.PKey) -> Callable[[bytes], bytes]:
    return lambda data: key.sign_ssh_data(data).asbytes()


@pytest.fixture
def keys(doors: Doors, embedded_client: Client) -> tuple[paramiko.Ed25519Key, paramiko.Ed25519Key]:
    doors.add(embedded_client.key("bob").with_suffix(".pub"), BOB, "key-bob")
    home = embedded_client.home
    return paramiko.Ed25519Key(filename=str(home / "alice")), paramiko.Ed25519Key(filename=str(home / "bob"))


Keys = tuple[paramiko.Ed25519Key, paramiko.Ed25519Key]


async def test_identity_is_of_the_key_that_signed(raw: Callable[[], Raw], keys: Keys) -> None:
    alice, bob = keys

    def attack() -> None:
        client = raw()
        name = "ssh-ed25519"
        assert client.offer(name, bob.asbytes()) == PK_OK
        assert client.offer(name, bob.asbytes(), signer(alice)) == FAILURE
        assert client.offer(name, alice.asbytes(), signer(alice)) == SUCCESS
        # Too late: the connection is alice's.
        client.transport._send_message(_unsigned(bob))
        assert client.run("whoami") == b"alice\n"

    await asyncio.to_thread(attack)


def _unsigned(key: paramiko.PKey) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(cMSG_USERAUTH_REQUEST)
    for part in ("x", "ssh-connection", "publickey"):
        message.add_string(part)
    message.add_boolean(False)
    message.add_string("ssh-ed25519")
    message.add_string(key.asbytes())
    return message


async def test_an_offer_alone_opens_nothing(raw: Callable[[], Raw], keys: Keys, doors: Doors) -> None:
    def attack() -> None:
        client = raw()
        assert client.offer("ssh-ed25519", keys[0].asbytes()) == PK_OK
        with pytest.raises(paramiko.SSHException):
            client.transport.open_session(timeout=20)

    await asyncio.to_thread(attack)
    assert not doors.sessions


async def test_key_types_we_cannot_read_do_not_end_the_connection(raw: Callable[[], Raw], keys: Keys) -> None:
    sk = paramiko.Message()
    for part in (b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"):
        sk.add_string(part)

    def attack() -> None:
        client = raw()
        assert client.offer("sk-ssh-ed25519@openssh.com", sk.asbytes()) == FAILURE
        assert client.offer("ssh-ed25519", b"mangled") == FAILURE
        assert client.offer("ssh-ed25519-cert-v01@openssh.com", keys[0].asbytes()) == FAILURE
        assert client.offer("rsa-sha2-256", keys[0].asbytes()) == FAILURE
        assert client.offer("ssh-ed25519", keys[0].asbytes(), signer(keys[0])) == SUCCESS

    await asyncio.to_thread(attack)


async def test_six_attempts_end_the_connection(raw: Callable[[], Raw], keys: Keys) -> None:
    def attack() -> list[int]:
        client = raw()
        return [client.offer("ssh-dss", b"x") for _ in range(6)]

    assert await asyncio.to_thread(attack) == [FAILURE] * 5 + [DISCONNECTED]


async def test_signatures_of_another_connection_are_worth_nothing(raw: Callable[[], Raw], keys: Keys) -> None:
    def attack() -> None:
        stolen: list[bytes] = []
        first, second = raw(), raw()
        sign = signer(keys[0])
        assert (
            first.offer("ssh-ed25519", keys[0].asbytes(), lambda data: stolen.append(sign(data)) or stolen[0])
            == SUCCESS
        )
        assert second.offer("ssh-ed25519", keys[0].asbytes(), lambda _: stolen[0]) == FAILURE
        assert second.offer("ssh-ed25519", keys[0].asbytes(), lambda _: b"\0\0\0\x0bssh-ed25519junk") == FAILURE

    await asyncio.to_thread(attack)


async def test_a_channel_runs_one_command(raw: Callable[[], Raw], keys: Keys, doors: Doors) -> None:
    def attack() -> None:
        client = raw()
        client.offer("ssh-ed25519", keys[0].asbytes(), signer(keys[0]))
        channel = client.transport.open_session(timeout=20)
        channel.exec_command("nap 1")
        with pytest.raises((paramiko.SSHException, EOFError)):
            channel.exec_command("whoami")

    await asyncio.to_thread(attack)
    assert len(doors.sessions) <= 1


async def test_ten_channels_and_no_agent_or_x11(raw: Callable[[], Raw], keys: Keys) -> None:
    def attack() -> None:
        client = raw()
        client.offer("ssh-ed25519", keys[0].asbytes(), signer(keys[0]))
        channels = [client.transport.open_session(timeout=20) for _ in range(10)]
        with pytest.raises(paramiko.ChannelException):
            client.transport.open_session(timeout=20)
        for request in (channels[0].request_x11, channels[1].invoke_subsystem):
            with pytest.raises(paramiko.SSHException):
                request("sftp") if request == channels[1].invoke_subsystem else request()
        for kind in ("direct-tcpip", "auth-agent@openssh.com", "direct-streamlocal@openssh.com"):
            with pytest.raises(paramiko.ChannelException):
                client.transport.open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 1), timeout=20)

    await asyncio.to_thread(attack)


async def test_a_client_that_ignores_its_window_is_cut(raw: Callable[[], Raw], keys: Keys) -> None:
    def attack() -> None:
        client = raw()
        client.offer("ssh-ed25519", keys[0].asbytes(), signer(keys[0]))
        channel = client.transport.open_session(timeout=20)
        channel.exec_command("follow")
        channel.out_window_size = 1 << 40
        try:
            for _ in range(1000):
                channel.send(bytes(32_000))
        except (OSError, EOFError):
            pass
        client.transport.join(20)
        assert not client.transport.is_active()

    await asyncio.to_thread(attack)


@pytest.fixture
def config() -> SshConfig:
    return SshConfig(port=0, address="127.0.0.1", login_grace=2.0)


def connect(port: int, source: str = "127.0.0.1", send: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0))
    sock.sendall(send)
    return sock


def is_cut(sock: socket.socket) -> bool:
    """Wait until the server ends the connection."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", b"SSH-2.0-half", b"SSH-2.0-Slow\r\n", b"GET / HTTP/1.0\r\n\r\n", b"S" * 5000])
async def test_strangers_are_cut_at_the_grace(embedded: EmbeddedSsh, sent: bytes) -> None:
    sock = connect(embedded.port, send=sent)
    assert await asyncio.wait_for(asyncio.to_thread(is_cut, sock), 10)
    sock.close()
    await eventually(lambda: not len(embedded.gate))


async def test_a_client_silent_after_key_exchange_is_cut(embedded: EmbeddedSsh, raw: Callable[[], Raw]) -> None:
    client = await asyncio.to_thread(raw)
    await eventually(lambda: not client.transport.is_active(), 10)
    await eventually(lambda: not len(embedded.gate))


async def test_a_packet_of_impossible_length_is_not_awaited(embedded: EmbeddedSsh) -> None:
    sock = connect(embedded.port, send=b"SSH-2.0-Liar\r\n" + struct.pack(">IB", 0xFFFFFF0C, 4) + bytes(100))
    assert await asyncio.wait_for(asyncio.to_thread(is_cut, sock), 1.8)
    sock.close()


async def test_a_crowd_of_silent_connections_keeps_nobody_out(
    home: Path, doors: Doors, work_tree: Path, repository: Path
) -> None:
    server = EmbeddedSsh(SshConfig(port=0, address="127.0.0.1"), home / "keys", doors)
    await server.start()
    threads = threading.active_count()
    crowd: list[socket.socket] = []

    def gather() -> None:
        for n in range(2000):
            crowd.append(connect(server.port, f"127.0.0.{2 + n // 10}", b"SSH-2.0-" if n % 2 else b""))

    try:
        await asyncio.to_thread(gather)
        await eventually(lambda: len(server.gate) == 100)
        assert threading.active_count() <= threads + 2, "the silent cost threads"
        client = Client(home, server.port, "x")
        doors.add(client.key("alice").with_suffix(".pub"), ALICE, "key-alice")
        loop = asyncio.get_running_loop()
        before = loop.time()
        status, _, err = await client.git("push", client.url("app"), "main", cwd=work_tree)
        assert status == 0, err
        assert loop.time() - before < 15  # far below the grace: the crowd was still there
        assert len(server.gate) >= 99
    finally:
        for sock in crowd:
            sock.close()
        await server.stop(1)


async def test_one_source_fills_only_its_own_places(client: Client) -> None:
    crowd = [connect(client.port, "127.0.0.9") for _ in range(30)]
    try:
        assert (await client.run("whoami"))[1] == b"alice\n"
    finally:
        for sock in crowd:
            sock.close()


async def test_only_modern_algorithms_are_offered(client: Client) -> None:
    _, _, log = await finish(client.argv("whoami", options=["-vv", "-o", "LogLevel=DEBUG2"]))
    offered = log.decode().partition("peer server KEXINIT proposal")[2]
    lines = [line.partition(": ")[2] for line in offered.splitlines() if "debug2: " in line][:10]
    names = {name for line in lines for name in line.partition(": ")[2].split(",")}
    assert "kex-strict-s-v00@openssh.com" in names and "ssh-ed25519" in names
    assert not [
        n for n in names if "sha1" in n or "cbc" in n or "md5" in n or "group14" in n or n in ("ssh-rsa", "ssh-dss")
    ]
    assert os.stat(client.home / "keys" / "ssh_host_ed25519_key").st_mode & 0o777 == 0o600
