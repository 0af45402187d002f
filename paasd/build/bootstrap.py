"""Makes a root file system from the distribution's packages: mmdebstrap, its tar streamed as it is made."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from paasd.errors import BuildFailed

PACKAGES = ("ca-certificates", "netbase", "tzdata")
_CHUNK = 256 * 1024
_STOP_TIMEOUT = 15.0
_LEFT_OUT = ("doc/*", "info/*", "man/*", "lintian/*", "locale/*", "bug/*")
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def mmdebstrap_command(suite: str, folder: Path, *, ca_bundle: str, inside: str = "") -> list[str]:
    """The argument list. `folder` holds `apt.conf`, `host.sources` (to fetch with) and `paasd.sources` (to keep).

    The result is a tar on standard output; or the directory `inside`, for a container that may mount nothing.
    """
    # Hooks are mmdebstrap's own mini language: constants of ours, and paths quoted for it.
    hooks = [
        'rm -f "$1/etc/apt/sources.list" "$1/etc/apt/apt.conf.d/99mmdebstrap"',
        'find "$1/etc/apt/sources.list.d" -type f -delete',
        f"upload {shlex.quote(str(folder / 'paasd.sources'))} /etc/apt/sources.list.d/paasd.sources",
        'chroot "$1" groupadd --gid 10001 app',
        'chroot "$1" useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /bin/sh app',
        'chroot "$1" install -d -o app -g app /app',
        'rm -rf "$1/var/cache/apt/archives" "$1/var/log/apt" "$1/var/log/dpkg.log"',
    ]
    if ca_bundle:
        source = shlex.quote(ca_bundle)
        # Once as it is used, once where a later update-ca-certificates takes it from.
        hooks += [f"upload {source} {CA_BUNDLE}", f"upload {source} /usr/local/share/ca-certificates/paasd-host.crt"]
    return [
        "mmdebstrap",
        "--variant=minbase",
        *(("--mode=root", "--skip=chroot/mount", "--format=directory") if inside else ("--format=tar",)),
        f"--include={','.join(PACKAGES)}",
        f"--aptopt={folder / 'apt.conf'}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{path}" for path in _LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
        inside or "-",
        str(folder / "host.sources"),
    ]


@asynccontextmanager
async def bootstrap(command: list[str], work_dir: Path, on_line: Callable[[str], None]) -> AsyncIterator[Bootstrap]:
    """Run the command; leaving the block ends it. Raises BuildFailed when it is not installed."""
    environ = os.environ | {"TMPDIR": str(work_dir), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            limit=_CHUNK,
        )
    except FileNotFoundError:
        raise BuildFailed("base images are made with mmdebstrap, which is not installed", hint=_INSTALL) from None
    run = Bootstrap(process, on_line)
    try:
        yield run
    finally:
        await asyncio.shield(run.end())


_INSTALL = "Install it with: apt-get install mmdebstrap"


class Bootstrap:
    def __init__(self, process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=20)
        self._reading = asyncio.create_task(self._read_messages())

    async def tar(self) -> AsyncIterator[bytes]:
        """The file system. Raises BuildFailed with the last messages when the command failed."""
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(_CHUNK):
            yield chunk
        await self._reading
        status = await self._process.wait()
        if status != 0:
            error = BuildFailed(
                f"the base image could not be made: mmdebstrap ended with status {status}",
                hint="Check the package sources in /etc/apt with: apt-get update",
            )
            error.log_tail = tuple(self._tail)
            raise error

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()  # it then unmounts and removes what it made
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._reading.cancel()

    async def _read_messages(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            text = line.decode(errors="backslashreplace").rstrip()
            self._tail.append(text)
            self._on_line(text)
