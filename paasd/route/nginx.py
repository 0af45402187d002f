"""The Nginx process of one edge: its main configuration, test, start, reload and end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import pwd
import re
import resource
import shutil
import signal
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import psutil

from paasd.config import HttpConfig
from paasd.errors import EdgeError
from paasd.route import asking, processes
from paasd.route.files import read_text, replace_file
from paasd.route.sites import listen_addresses, tls_addresses

_log = logging.getLogger(__name__)

_COMMAND_TIMEOUT = 30.0
_QUIT_TIMEOUT = 5.0
_MAX_OPEN_FILES = 65536
_MAX_LOG = 16 * 1024**2
_BODY_SIZE = "100m"
_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
_UNSAFE_IN_PATH = re.compile(r"[^\w./@+:,=-]")


class Nginx:
    """Nginx daemonizes and outlives us: it is found again by its pid file or its command line."""

    def __init__(self, directory: Path, templates: Path, http: HttpConfig, user: str | None) -> None:
        for path in (directory, templates):
            if _UNSAFE_IN_PATH.search(str(path)):
                raise EdgeError(f"the path {str(path)!r} has characters that an Nginx configuration cannot hold")
        self.directory = directory
        self.config = directory / "nginx.conf"
        self.control = directory / "control" / "control.sock"
        self.tls = directory / "tls"
        self.error_log = directory / "logs" / "error.log"
        self._templates = templates
        self._http = http
        self._user = user if os.geteuid() == 0 else None
        self._pid_file = directory / "nginx.pid"

    def create_directories(self) -> None:
        """Workers of another user pass through ours to their temporary files; the control socket's is closed to them,
        because Nginx makes every Unix socket writable for all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        for name, mode in (("tmp", 0o711), ("logs", 0o700), ("control", 0o700), ("test", 0o700), ("tls", 0o700)):
            (self.directory / name).mkdir(exist_ok=True)
            (self.directory / name).chmod(mode)
        if os.geteuid() == 0:
            self._let_workers_through()

    def _let_workers_through(self) -> None:
        """Workers keep bodies over 64 KiB in files, so they have to pass, not read, every directory above."""
        data = self.directory.parent
        if data.stat().st_uid == 0:
            data.chmod(stat.S_IMODE(data.stat().st_mode) | 0o011)
        if closed := [str(path) for path in self.directory.parents if not path.stat().st_mode & 0o001]:
            _log.warning(
                "Nginx's workers cannot pass %s, so big uploads will fail; chmod o+x it", " and ".join(reversed(closed))
            )

    async def worker_uid(self) -> int | None:
        """The user of its workers, if that is not ours."""
        if os.geteuid() != 0:
            return None
        name = self._user or await _compiled("user", _binary()) or "nobody"
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            _log.warning("there is no user %s for Nginx's workers, so they cannot write access logs", name)
            return None

    async def render(self, include: Sequence[str]) -> str:
        """Text of the main configuration, which reads the files `include`."""
        return await self._render(include, test=False)

    async def test(self, include: Sequence[str]) -> str | None:
        """Let Nginx check a main configuration that reads only `include`. The reason if it refuses."""
        path = self.directory / "test" / "nginx.conf"
        await asyncio.to_thread(path.write_text, await self._render(include, test=True))
        status, output = await _run(self._arguments(path, "stderr", "-t", "-q"))
        return None if status == 0 else _reason(output)

    async def start(self) -> None:
        """Start Nginx with the configuration on disk. Workers that a killed master left behind are retired first."""
        await self._retire_orphans()
        await self._check_port()
        self.control.unlink(missing_ok=True)
        status, output = await _run(self._arguments(self.config, str(self.error_log)))
        if status != 0:
            raise EdgeError(f"Nginx does not start: {_reason(output)}")

    def master(self) -> psutil.Process | None:
        return processes.master(self._pid_file, self.config)

    def reload(self) -> None:
        process = self.master()
        if process is None:
            raise EdgeError("Nginx is not running, so it cannot be reloaded")
        process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        process = await asyncio.to_thread(self.master)
        if process is not None:
            family = [process, *await asyncio.to_thread(processes.workers, process)]
            await _end(family, process)
        await _end(await asyncio.to_thread(processes.orphans, self.error_log))
        for path in (self.control, self._pid_file):
            path.unlink(missing_ok=True)

    def protect_control(self) -> None:
        """The socket's directory is private already; this is the second lock."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            self.control.chmod(0o600)

    def rotate_log(self) -> None:
        """Keep the error log and one before it. The log is only for the edge's own trouble, but apps can cause much."""
        with contextlib.suppress(FileNotFoundError):
            if self.error_log.stat().st_size > _MAX_LOG and (process := self.master()):
                self.error_log.rename(self.error_log.with_suffix(".log.1"))
                process.send_signal(signal.SIGUSR1)

    def last_errors(self) -> str:
        lines = (read_text(self.error_log) or "").splitlines()
        return _reason("\n".join(line for line in lines[-50:] if "[emerg]" in line)) if lines else ""

    async def _render(self, include: Sequence[str], *, test: bool) -> str:
        modules = await _modules()
        template, fingerprint = await asyncio.to_thread(_load_template, self._templates)
        return template.render(
            fingerprint=fingerprint,
            modules=modules,
            user=self._user,
            open_files=_open_files(),
            pid=self.directory / "test" / "nginx.pid" if test else self._pid_file,
            error_log="stderr" if test else f'"{self.error_log}"',
            directory=self.directory,
            templates=self._templates,
            listen=listen_addresses(self._http),
            listen_tls=tls_addresses(self._http),
            tls=self.tls,
            https_port=self._http.https_port,
            control=None if test else self.control,
            include=include,
            body_size=_BODY_SIZE,
            resolvers=await asyncio.to_thread(asking.resolvers, self._http),
            ca_bundle=await asyncio.to_thread(asking.ca_bundle, self._http),
            client_rate=self._http.client_rate,
            client_connections=self._http.client_connections,
        )

    def _arguments(self, config: Path, error_log: str, *more: str) -> list[str]:
        return [_binary(), "-p", str(self.directory), "-e", error_log, "-c", str(config), *more]

    async def _retire_orphans(self) -> None:
        await asyncio.to_thread(lambda: processes.signal_all(processes.orphans(self.error_log), signal.SIGQUIT))

    async def _check_port(self) -> None:
        """Orphans that were told to quit need a moment to let go of the port."""
        https_port = self._http.https_port if tls_addresses(self._http) else 0
        for port, setting in ((self._http.port, "http.port"), (https_port, "http.https_port")):
            for _ in range(40 if port else 0):
                holder = await asyncio.to_thread(processes.port_holder, self._http.address, port)
                if holder is None or not holder.startswith(("nginx ", processes.UNSEEN)):
                    break
                await asyncio.sleep(0.05)
            if port and holder is not None:
                raise EdgeError(
                    f"port {port} on {self._http.address} is taken by {holder}",
                    hint=f"Stop that process, or give the edge another port with {setting}.",
                )


async def _end(family: list[psutil.Process], master: psutil.Process | None = None) -> None:
    """SIGQUIT lets requests finish; then SIGTERM, then SIGKILL."""
    for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
        targets = [master] if master and number != signal.SIGKILL else family
        await asyncio.to_thread(processes.signal_all, targets, number)
        deadline = time.monotonic() + _QUIT_TIMEOUT
        while time.monotonic() < deadline:
            family = await asyncio.to_thread(processes.living, family)
            if not family:
                return
            await asyncio.sleep(0.01)
    raise EdgeError(f"Nginx (pid {family[0].pid}) does not end, not even after SIGKILL")


async def _run(arguments: Sequence[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _COMMAND_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise EdgeError(f"{' '.join(arguments)} gave no answer within {_COMMAND_TIMEOUT:.0f} s") from None
    return process.returncode or 0, output.decode(errors="replace")


def _binary() -> str:
    path = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        raise EdgeError(
            "there is no nginx on this machine", hint="apt-get install nginx libnginx-mod-http-lua lua-cjson"
        )
    return path


async def _modules() -> list[str]:
    """The distribution's modules, by the path Nginx was built with."""
    directory = await _modules_path(_binary())
    paths = [directory / name for name in _MODULES]
    for path in paths:
        if not path.exists():
            raise EdgeError(
                f"Nginx has no Lua module: {path} is missing", hint="apt-get install libnginx-mod-http-lua lua-cjson"
            )
    return [str(path) for path in paths]


def _open_files() -> int:
    """What a worker may open: at most the hard limit we have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)


_known: dict[str, str] = {}
"""What binaries say of how they were built."""


async def _modules_path(binary: str) -> Path:
    return Path(await _compiled("modules-path", binary) or "/usr/lib/nginx/modules")


async def _compiled(option: str, binary: str) -> str:
    """An option that the binary was built with; empty if it was not."""
    if binary not in _known:
        _, _known[binary] = await _run([binary, "-V"])
    found = re.search(rf"--{option}=(\S+)", _known[binary])
    return found[1] if found else ""


def _load_template(templates: Path) -> tuple[jinja2.Template, str]:
    """The main template, and a fingerprint of what Nginx reads besides it, so that an upgrade is noticed."""
    digest = hashlib.sha256()
    for path in _static_files(templates):
        digest.update(path.read_bytes())
    return _compile((templates / "nginx.conf.j2").read_text()), digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def _compile(text: str) -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(text)


def _static_files(templates: Path) -> Iterable[Path]:
    return sorted(
        [*(templates / "lua").rglob("*.lua"), *(templates / "pages").glob("*.html"), *templates.glob("*.conf")]
    )


def _reason(output: str) -> str:
    """What a person needs of Nginx's messages."""
    lines = [re.sub(r"^.*?\[(emerg|alert|error)\] (\d+#\d+: )?", "", line) for line in output.splitlines()]
    return "; ".join(line for line in lines if line)[-1000:] or "it gave no reason"


async def write_config(path: Path, text: str) -> bool:
    """True if the file changed."""
    if await asyncio.to_thread(read_text, path) == text:
        return False
    await asyncio.to_thread(replace_file, path, text)
    return True
