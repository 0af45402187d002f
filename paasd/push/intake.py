"""Code that comes another way than `git push`: an archive, an image, another Git server. Each becomes a commit in a
scratch repository, which is then pushed into the app's own: what follows is a push like any other, with all its rules.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from paasd.config import Config
from paasd.errors import DeployFailed, InvalidInput, PaasdError, SourceRejected
from paasd.identity.sessions import Sessions
from paasd.models import Actor, App
from paasd.names import branch_name, shown
from paasd.outbound import look_up, may_reach
from paasd.progress import Progress
from paasd.source import archive, git
from paasd.source.repositories import Repositories

_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)*(?::[\w.-]{1,128})?(?:@sha256:[0-9a-f]{64})?"
)
_PLAIN = re.compile(r"[\x21-\x7e]{1,2000}")
_FETCH_TIMEOUT = 600.0
_SIZE_POLL = 0.5
_REMOTE = "remote: "
_COMPLAINT = " !"


class Intake:
    def __init__(self, config: Config, repositories: Repositories, sessions: Sessions) -> None:
        self._config = config
        self._repositories = repositories
        self._sessions = sessions
        self._root = config.data_dir / "cache"

    async def sweep(self) -> None:
        """Remove what a killed daemon left. Call at start."""
        for folder in await asyncio.to_thread(lambda: list(self._root.glob("intake-*"))):
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def image(self, actor: Actor, app: App, name: str, progress: Progress, gone: asyncio.Event) -> None:
        """Deploy a ready image. Raises InvalidInput for what is no name of one."""
        if not _IMAGE.fullmatch(name):
            raise InvalidInput(f"{shown(name)} is not the name of an image", hint="Write for example: nginx:1.27")
        async with self._scratch(app) as (scratch, parent):
            files = {"Dockerfile": f"FROM {name}\n"}
            commit = await asyncio.to_thread(archive.commit_files, scratch, files, f"Image {name}\n", parent)
            await self._push(actor, app, scratch, commit, progress, gone)

    async def archive(
        self, actor: Actor, app: App, data: AsyncIterator[bytes], progress: Progress, gone: asyncio.Event
    ) -> None:
        """Deploy the files of a tar or zip. Raises SourceRejected before anything is stored when one is hostile."""
        async with self._scratch(app) as (scratch, parent):
            path = scratch / "archive"
            size = await self._spool(path, data)
            progress.step(f"Reading an archive of {size / 1e6:.1f} MB")
            folder = await asyncio.to_thread(archive.check_archive, path)
            commit = await asyncio.to_thread(archive.commit_archive, scratch, path, folder, "Archive\n", parent)
            await self._push(actor, app, scratch, commit, progress, gone)

    async def sync(
        self, actor: Actor, app: App, url: str, branch: str, progress: Progress, gone: asyncio.Event
    ) -> None:
        """Fetch a branch (empty: the other side's default) from a Git server and deploy it. Raises InvalidInput for
        addresses that the box does not fetch from."""
        pinned = await self._resolve(url)
        wanted = branch_name(branch) if branch else "HEAD"
        async with self._scratch(app) as (scratch, _):
            progress.step(f"Fetching {wanted} from {_without_password(url)}")
            await self._fetch(scratch, url, pinned, f"+{wanted}:refs/heads/import")
            commit = (await git.run(scratch, "rev-parse", "refs/heads/import")).decode().strip()
            progress.detail(f"got {commit[:8]}")
            await self._push(actor, app, scratch, commit, progress, gone)

    @asynccontextmanager
    async def _scratch(self, app: App) -> AsyncIterator[tuple[Path, str | None]]:
        """A repository that sees the app's objects, and the commit its deploy branch is at."""
        own = await self._repositories.ensure(app)
        parent = (await self._repositories.refs(app)).get(f"refs/heads/{_branch(app)}")
        scratch = await asyncio.to_thread(_new_folder, self._root)
        try:
            await git.run(scratch, "init", "--quiet", "--bare", "--template=", ".")
            alternates = scratch / "objects/info/alternates"
            await asyncio.to_thread(alternates.write_text, f"{own / 'objects'}\n")
            yield scratch, parent
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, scratch, True))

    async def _spool(self, path: Path, data: AsyncIterator[bytes]) -> int:
        size, limit = 0, self._config.push.max_size
        with await asyncio.to_thread(path.open, "wb") as file:
            async for piece in data:
                size += len(piece)
                if size > limit:
                    raise SourceRejected(
                        f"the archive is larger than {limit} bytes (push.max_size)", hint="Leave out what is generated."
                    )
                await asyncio.to_thread(file.write, piece)
        return size

    async def _push(
        self, actor: Actor, app: App, scratch: Path, commit: str, progress: Progress, gone: asyncio.Event
    ) -> None:
        """Raises DeployFailed with what the push was refused with."""
        token = self._sessions.open(actor, gone)
        environ = {
            "PAASD_API": str(self._config.api_socket),
            "PAASD_APP": app.name,
            "PAASD_TOKEN": token.reveal(),
        }
        target = f"+{commit}:refs/heads/{_branch(app)}"
        try:
            process = await asyncio.create_subprocess_exec(
                git.GIT, "-C", str(scratch), "push", "--quiet", str(self._repositories.path(app)), target,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=git.environment(environ),
            )  # fmt: skip
            assert process.stderr is not None
            try:
                # The deployment has limits of its own, and ends when the client leaves.
                complaints = await _relay(process.stderr, progress)
                status = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        finally:
            self._sessions.close(token)
        if status:
            detail, *hints = complaints or ["the deployment was refused"]
            raise DeployFailed(detail, hint=" ".join(hints))

    async def _fetch(self, scratch: Path, url: str, pinned: str, refspec: str) -> None:
        """With the address that was judged, no other protocol, no redirect to elsewhere and an end to its size."""
        options = {
            "protocol.allow": "never",
            "protocol.https.allow": "always",
            "protocol.http.allow": "always",
            "http.followRedirects": "false",
            "http.curloptResolve": pinned,
            "fetch.fsckObjects": "true",
            "core.hooksPath": os.devnull,
        }
        config = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        fetching = asyncio.create_task(
            git.run(scratch, *config, "fetch", "--quiet", "--no-tags", "--", url, refspec, timeout=_FETCH_TIMEOUT)
        )
        try:
            while not (await asyncio.wait([fetching], timeout=_SIZE_POLL))[0]:
                if await asyncio.to_thread(_size, scratch) > self._config.push.max_size:
                    raise SourceRejected(f"the repository is larger than {self._config.push.max_size} bytes")
            await fetching
        except PaasdError as error:
            if isinstance(error, SourceRejected):
                raise
            hint = "Check the address and the branch with: git ls-remote URL"
            raise SourceRejected(_without_password(error.detail), hint=hint) from None
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def _resolve(self, url: str) -> str:
        """`host:port:address` to connect to. Raises InvalidInput unless that is public or in push.sync_from."""
        host, port, address = await look_up(url if _PLAIN.fullmatch(url) else "")
        if not may_reach(address, self._config.run.subnet_pool, self._config.push.sync_from):
            raise InvalidInput(
                f"{shown(host)} is at {address}, and git:sync does not fetch from there",
                hint="An administrator can allow the network with push.sync_from in paasd.toml.",
            )
        shown_address = f"[{address}]" if address.version == 6 else str(address)
        return f"{host}:{port}:{shown_address}"


def _branch(app: App) -> str:
    return app.deploy_branch or "main"


async def _relay(stream: asyncio.StreamReader, progress: Progress) -> Sequence[str]:
    """Hand on what the hook says; returns its complaints, which the caller raises."""
    complaints = []
    while line := await stream.readline():
        text = line.decode(errors="backslashreplace").rstrip()
        if not text.startswith(_REMOTE):
            continue
        said = text.removeprefix(_REMOTE)
        if said.startswith(_COMPLAINT):
            complaints.append(said.removeprefix(_COMPLAINT).strip())
        else:
            progress.line(said)
    return complaints


def _new_folder(root: Path) -> Path:
    root.mkdir(mode=0o700, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="intake-", dir=root))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.pack*") if path.is_file()) + sum(
        path.stat().st_size for path in folder.rglob("tmp_*") if path.is_file()
    )


def _without_password(text: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
