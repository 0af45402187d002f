"""A whole paasd for tests: its own process, data directory, ports, label, keys. Nothing in it is simulated."""

from __future__ import annotations

import compileall
import functools
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paasd.run.firewall import remove_chains
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "buildpacks"
_DOCKER = "/var/run/docker.sock"


@dataclass
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]


class Box:
    """`start()` returns when SSH answers. `close()` removes everything that carries the box's label."""

    def __init__(self, settings: str = "", **options: str) -> None:
        self.label = f"pt{secrets.token_hex(3)}"
        # Short, because paths of Unix sockets are limited to 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="pt", dir="/tmp"))
        self.root.chmod(0o711)  # Nginx's workers have to get through
        self.data = self.root / "d"
        self.http_port, self.https_port, self.ssh_port = free_port(), free_port(), free_port()
        self.key = self.new_key("key")
        self._options = options
        self._config = self.root / "paasd.toml"
        self._config.write_text(settings)
        self._log = self.root / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.user = "paasd"
        """Any name will do for the embedded server; sshd wants the daemon's own."""

    def start(self, failpoint: str = "") -> Box:
        _compile()
        options = [word for name, value in self._options.items() for word in (f"--{name.replace('_', '-')}", value)]
        command = [sys.executable, "-m", "paasd", "serve", "--config", str(self._config), "--data-dir", str(self.data)]
        command += ["--http-port", str(self.http_port), "--https-port", str(self.https_port)]
        command += ["--ssh-port", str(self.ssh_port), "--label", self.label]
        command += ["--admin-key", f"{self.key}.pub", *options]
        environment = {
            "PAASD_BLOCKBUSTER": "1",
            **os.environ,
            "PAASD_FAILPOINT": failpoint,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        process = self.process
        eventually(lambda: process.poll() is not None or _accepts(self.ssh_port), 60)
        if process.poll() is not None:
            raise AssertionError(f"the daemon did not start:\n{self.log()}")
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon; Nginx and the instances go on."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()  # takes its sshd with it, if it has one
        self.kill_nginx(signal.SIGTERM)
        remove_labelled(self.label)
        remove_chains(self.label)
        shutil.rmtree(self.root, ignore_errors=True)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def new_key(self, name: str) -> Path:
        path = self.root / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, timeout=30)
        return path

    def ssh_command(self, key: Path | None = None) -> list[str]:
        options = {
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.root / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "/dev/null", "-i", str(key or self.key), *words]

    def ssh(self, *words: str, key: Path | None = None, stdin: str = "", timeout: float = 120) -> Done:
        """Run one paasd command over SSH."""
        command = [*self.ssh_command(key), "-p", str(self.ssh_port), f"{self.user}@127.0.0.1", *words]
        return run(command, stdin=stdin, timeout=timeout)

    def json(self, *words: str) -> Any:
        """The answer of a command with `--json`."""
        done = self.ssh(*words, "--json")
        assert done.status == 0, done
        return json.loads(done.out)

    def local(self, *words: str, stdin: str = "") -> Done:
        """Run one paasd command on the box itself."""
        environment = {**os.environ, "PAASD_DATA_DIR": str(self.data)}
        return run([sys.executable, "-m", "paasd", *words], stdin=stdin, env=environment, cwd=ROOT)

    def git_environment(self, key: Path | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "GIT_SSH_COMMAND": " ".join(self.ssh_command(key)),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def remote(self, app: str) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.ssh_port}/{app}"

    def push(
        self, repository: Repository, app: str, refspec: str = "main", *options: str, timeout: float = 300
    ) -> Done:
        command = ["git", "-C", str(repository.path), "push", *options, self.remote(app), refspec]
        return run(command, env=self.git_environment(), timeout=timeout)

    def begin_push(self, repository: Repository, app: str, refspec: str = "main") -> subprocess.Popen[str]:
        command = ["git", "-C", str(repository.path), "push", self.remote(app), refspec]
        environment = self.git_environment()
        return subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def repository(self, files: Mapping[str, str | bytes] | None = None, example: str = "") -> Repository:
        """A new repository with one commit: of `files`, or of a buildpack's example, or both."""
        repository = Repository(Path(tempfile.mkdtemp(prefix="repo", dir=self.root)))
        if example:
            shutil.copytree(EXAMPLES / example / "example", repository.path, dirs_exist_ok=True)
        repository.git("init", "-q", "-b", "main")
        repository.commit(files or {})
        return repository

    def get(
        self,
        app: str,
        path: str = "/",
        *,
        host: str = "",
        timeout: float = 10,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A request through the edge."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Host": host or f"{app}.localhost", **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
            return Answer(response.status, text, dict(response.getheaders()))
        finally:
            connection.close()

    def differences(self) -> list[str]:
        """What `doctor --state` sees."""
        answer = self.api("GET", "/state")
        assert "differences" in answer, answer
        return list(answer["differences"])

    def settles(self, seconds: float = 30, revive: Callable[[], object] = lambda: None) -> None:
        """Wait until database, engine, edge and files agree, and fail with what they disagree on.

        It is also what to ask where nothing should have changed: what another test left may just be being removed.
        `revive` is called before each look, where the daemon may die.
        """
        deadline, seen = time.monotonic() + seconds, ["nobody looked"]
        while time.monotonic() < deadline:
            revive()
            try:
                seen = self.differences()
            except (OSError, http.client.HTTPException, AssertionError) as error:
                seen = [f"the daemon did not say: {error!r}"]
            if not seen:
                return
            time.sleep(0.05)
        told = "\n".join(f"  {each}" for each in seen)
        raise AssertionError(f"after {seconds} s there is still\n{told}\nand the daemon said\n{self.log()[-3000:]}")

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the API's own socket, as root."""
        return unix_request(str(self.data / "run" / "api.sock"), method, f"/api/v1{path}", body)[1]

    def containers(self) -> list[dict[str, Any]]:
        return labelled("containers", self.label)

    def kill_nginx(self, number: int = signal.SIGKILL) -> None:
        pid_file = self.data / "edge" / "nginx.pid"
        if pid_file.exists():
            try:
                os.kill(int(pid_file.read_text()), number)
            except (ProcessLookupError, ValueError):
                return


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *words: str, stdin: bytes = b"") -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.path), *identity, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace").strip()

    def commit(self, files: Mapping[str, str | bytes], message: str = "change") -> str:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@dataclass
class Done:
    """A finished command: `all` is what a person would have read."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


def run(
    command: list[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> Done:
    done = subprocess.run(
        command, input=stdin.encode(), env=env, cwd=cwd, capture_output=True, timeout=timeout, check=False
    )
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@functools.cache
def _compile() -> None:
    """As an installation does it: a daemon of a test writes no bytecode, and compiling takes a third of its start."""
    for folder in ("paasd", "buildpacks"):
        compileall.compile_dir(ROOT / folder, quiet=2)


def eventually(holds: Callable[[], Any], seconds: float = 30) -> Any:
    """Ask again and again until the answer is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := holds():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not so within {seconds} s: {holds}")


def unix_request(path: str, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an HTTP request over a Unix socket."""
    connection = http.client.HTTPConnection("unix", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(60)
    try:
        connection.sock.connect(path)
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, url, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None
    finally:
        connection.close()


def docker(method: str, url: str, body: Any = None) -> Any:
    """The engine's answer, straight from its API, so that tests do not trust paasd's own view."""
    return unix_request(_DOCKER, method, url, body)[1]


def labelled(kind: str, label: str) -> list[dict[str, Any]]:
    filters = json.dumps({"label": [f"paasd.instance={label}"]}).replace(" ", "")
    path = {"containers": "/containers/json?all=1&", "networks": "/networks?", "images": "/images/json?"}[kind]
    quoted = "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in filters)
    return docker("GET", f"{path}filters={quoted}") or []


def remove_labelled(label: str) -> None:
    ways = {"containers": "?force=1&v=1", "networks": "", "images": "?force=1"}
    with ThreadPoolExecutor(4) as pool:  # the shared box has a hundred of each in the end
        for kind, options in ways.items():
            paths = [f"/{kind}/{found['Id']}{options}" for found in labelled(kind, label)]
            list(pool.map(functools.partial(docker, "DELETE"), paths))


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
