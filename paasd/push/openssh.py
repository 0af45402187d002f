"""The OpenSSH transport: our own sshd process, configured to do nothing but carry sessions to the daemon.

sshd asks the daemon whose key it is (AuthorizedKeysCommand) and starts `bridge.py` as forced command, both over
`run_dir/ssh.sock`. The forced command names the key that sshd saw the signature of; the daemon looks it up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shutil
import signal
import socket
import sys
from pathlib import Path

from paasd.config import SshConfig
from paasd.errors import InvalidInput
from paasd.push import bridge, host_keys
from paasd.push.bridge_server import BridgeServer
from paasd.push.session import FrontDoors

log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0


class OpenSsh:
    def __init__(self, config: SshConfig, keys_dir: Path, run_dir: Path, doors: FrontDoors, *, user: str = "") -> None:
        """`user` is who clients log in as: by default `paasd` if root runs the daemon and that user exists, else the
        daemon's own. It needs a login shell and a password that is not locked (`*`, not `!`)."""
        self._config = config
        self._keys_dir = keys_dir.absolute()
        self._run_dir = run_dir.absolute()
        self.user = user or _login_user()
        self._bridges = BridgeServer(self._run_dir / "ssh.sock", pwd.getpwnam(self.user), self._key_line, doors)
        self._sshd: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.starts = 0

    @property
    def port(self) -> int:
        return self._config.port

    async def start(self) -> None:
        """Raises InvalidInput if sshd is missing or refuses the configuration."""
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if not sshd:
            raise InvalidInput("OpenSSH's sshd is not installed", hint="apt-get install openssh-server")
        check_owned_by_root(_interpreter())
        self._run_dir.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd's privilege separation insists on it
        keys = await asyncio.to_thread(host_keys.ensure, self._keys_dir)
        await asyncio.to_thread(self._config_file.write_text, self._sshd_config(keys))
        await self._test(sshd)
        await asyncio.to_thread(self._end_orphan)
        await self._bridges.start()
        self._supervisor = asyncio.create_task(self._supervise(sshd))
        await self._listening()

    async def stop(self, grace: float) -> None:
        """Stop accepting, let running sessions end for up to `grace` seconds, then hang up on the rest."""
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        await self._bridges.stop(grace)
        if self._sshd:
            # What is left are connections without a session.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._sshd.pid, signal.SIGTERM)

    async def disconnect_key(self, key_id: str) -> None:
        """End every session of this key; its connections can start no new ones."""
        self._bridges.disconnect_key(key_id)

    @property
    def _config_file(self) -> Path:
        return self._run_dir / "sshd_config"

    @property
    def _pid_file(self) -> Path:
        return self._run_dir / "sshd.pid"

    def _key_line(self, key_type: str, key: str) -> str:
        return f'restrict,pty,command="{self._bridge("session")} {key_type} {key}" {key_type} {key}\n'

    def _bridge(self, mode: str) -> str:
        return f"{_interpreter()} -I -S {bridge.__file__} {mode} {self._run_dir}/ssh.sock"

    def _sshd_config(self, keys: list[Path]) -> str:
        config = self._config
        total = max(config.max_unauthenticated, 2)
        address = f"[{config.address}]" if ":" in config.address else config.address
        root = "forced-commands-only" if pwd.getpwnam(self.user).pw_uid == 0 else "no"
        lines = [
            f"ListenAddress {address}:{config.port}",
            *(f"HostKey {key}" for key in keys),
            f"PidFile {self._pid_file}",
            f"AllowUsers {self.user}",
            f"PermitRootLogin {root}",
            f"AuthorizedKeysCommand {self._bridge('key')} %t %k",
            f"AuthorizedKeysCommandUser {self.user}",
            f"LoginGraceTime {max(1, round(config.login_grace))}",
            f"MaxStartups {total // 2}:30:{total}",
            f"PerSourceMaxStartups {config.max_per_source}",
            _FIXED,
        ]
        return "\n".join(lines)

    async def _test(self, sshd: str) -> None:
        check = await asyncio.create_subprocess_exec(
            sshd, "-t", "-f", str(self._config_file), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(check.communicate(), 20)
        if check.returncode:
            raise InvalidInput(f"sshd refuses its configuration: {errors.decode(errors='replace').strip()[:500]}")

    async def _supervise(self, sshd: str) -> None:
        """Keep sshd running; the pause before a restart grows while it keeps dying."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            await self._run_sshd(sshd)
            pause = _FIRST_PAUSE if loop.time() - started > _LONGEST_PAUSE else min(pause * 2, _LONGEST_PAUSE)
            log.error("sshd ended; starting it again in %.1f s", pause)
            await asyncio.sleep(pause)

    async def _run_sshd(self, sshd: str) -> None:
        # A pipe of our own: connections outlive the listener and hold its standard error, and asyncio takes a process
        # for running until all its pipes are closed.
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sshd, "-D", "-e", "-f", str(self._config_file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=write,
                start_new_session=True,
            )
        finally:
            os.close(write)
        self._sshd = process
        self.starts += 1
        logging_lines = asyncio.create_task(_log_lines(read))
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()  # the listener only; connections are processes of their own
                await asyncio.wait_for(process.wait(), 10)
            logging_lines.cancel()

    async def _listening(self) -> None:
        for _ in range(1000):
            if await asyncio.to_thread(_answers, self._config.address, self.port):
                return
            await asyncio.sleep(0.02)
        raise InvalidInput(f"sshd does not listen on {self._config.address}:{self.port}", hint="Is the port free?")

    def _end_orphan(self) -> None:
        """A daemon that was killed leaves its sshd behind, holding the port."""
        try:
            pid = int(self._pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return
        if str(self._config_file) in arguments:
            log.warning("ending sshd %d of an earlier daemon", pid)
            os.kill(pid, signal.SIGTERM)


_FIXED = """\
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
AuthorizedKeysFile none
PubkeyAcceptedAlgorithms ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,sk-ecdsa-sha2-nistp256@openssh.com,\
ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256
RequiredRSASize 2048
MaxAuthTries 6
MaxSessions 10
KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,\
ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group16-sha512
Ciphers chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr
MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,umac-128-etm@openssh.com
HostKeyAlgorithms ssh-ed25519,rsa-sha2-512,rsa-sha2-256
DisableForwarding yes
X11Forwarding no
AllowAgentForwarding no
AllowTcpForwarding no
AllowStreamLocalForwarding no
PermitTunnel no
PermitTTY yes
PermitUserRC no
PermitUserEnvironment no
AcceptEnv GIT_PROTOCOL
PrintMotd no
PrintLastLog no
UseDNS no
UsePAM no
Compression no
TCPKeepAlive yes
ClientAliveInterval 30
ClientAliveCountMax 3
LogLevel INFO
"""


def check_owned_by_root(path: Path) -> None:
    """sshd only runs an AuthorizedKeysCommand that root alone can change, along the whole path."""
    for part in (path, *path.parents):
        state = part.stat()
        if state.st_uid or state.st_mode & 0o022:
            raise InvalidInput(
                f"sshd cannot use {path}: {part} can be changed by others than root",
                hint="Install paasd with an interpreter of the system, or use the embedded transport.",
            )


def _interpreter() -> Path:
    return Path(sys.executable).resolve()


def _login_user() -> str:
    """sshd lets people in as the daemon's own user: `paasd` on an installed box."""
    return pwd.getpwuid(os.geteuid()).pw_name


def _answers(address: str, port: int) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    try:
        with socket.create_connection((host, port), 1) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


async def _log_lines(fd: int) -> None:
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb"))
    try:
        while not stream.at_eof():
            with contextlib.suppress(ValueError):  # a line longer than the buffer
                log.debug("sshd: %s", (await stream.readline()).decode(errors="replace").rstrip())
    finally:
        transport.close()
