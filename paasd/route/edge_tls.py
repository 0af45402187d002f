"""What the running Nginx knows of certificates, host names sent on to HTTPS, and ACME challenges.

Owns `edge/tls/`, the mirror that Nginx reads at its own start: `index.txt` names the certificates, each in a file of
its own (0600), `redirects.txt` the host names; `edge_staples.py` has what lies beside the
certificates. Everything is changed live, without a reload."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from paasd.errors import InvalidInput, PaasdError
from paasd.models import Secret
from paasd.names import app_name
from paasd.route.control import ControlSocket, Refused
from paasd.route.edge_staples import EdgeStaples, Staple
from paasd.route.files import commit_file, discard_file, prepare_file, read_text, replace_file

_log = logging.getLogger(__name__)

_ID = re.compile(r"[a-z0-9-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9][a-z0-9.-]{0,252}")
VERSIONS = ("1.2", "1.3")


@dataclass(frozen=True)
class Served:
    """A certificate as the edge takes it. Another certificate has another id."""

    id: str
    names: tuple[str, ...]
    """Host names, also `*.parent`, that are answered with it."""
    pem: Secret
    """Key, then the chain, leaf first."""
    least_version: str = "1.3"

    def text(self) -> str:
        if not _ID.fullmatch(self.id) or self.least_version not in VERSIONS:
            raise InvalidInput("a certificate of the edge has no proper id or TLS version")
        if not all(_NAME.fullmatch(name) for name in self.names):
            raise InvalidInput("a certificate of the edge has an invalid host name")
        return f"{' '.join((self.least_version, *sorted(self.names)))}\n{self.pem.reveal()}"


class EdgeTls:
    """Safe to call from many tasks; changes happen one after another."""

    def __init__(self, directory: Path, control: ControlSocket) -> None:
        self._directory = directory
        self._control = control
        self._index = directory / "index.txt"
        self._redirects = directory / "redirects.txt"
        self._staples = EdgeStaples(directory, control)
        self._changing = asyncio.Lock()

    async def put(self, certificate: Served) -> None:
        """Serve a certificate from the next handshake on. Nothing changes if this raises."""
        async with self._changing:
            await self._set(certificate)

    async def remove(self, id: str) -> None:
        async with self._changing:
            await self._remove(id)

    async def sync(self, certificates: Collection[Served], redirects: Mapping[str, Collection[str]]) -> None:
        """Make certificates and redirects (host names by app) equal these, live and in the files. What is right already
        is left alone. A certificate that the edge does not take keeps nothing else from being done; then this raises
        EdgeError in the end."""
        async with self._changing:
            live = await self._pairs("certificates")
            files = await asyncio.to_thread(self._files)
            wanted = {each.id: each for each in certificates}
            failures = await self._set_differing(certificates, live, files)
            for id in (live.keys() | files.keys()) - wanted.keys():
                await self._remove(id)
            if failures:  # perhaps there is room now
                failures = await self._set_differing([wanted[id] for id in failures], live, files)
            await asyncio.to_thread(self._write_index, wanted.keys() - failures.keys() | wanted.keys() & files.keys())
            await self._sync_redirects(redirects)
            await self._staples.sync(wanted.keys(), time.time())
        for id, error in failures.items():
            _log.error("the certificate %s for %s is not served: %s", id, " ".join(wanted[id].names), error.detail)
        if failures:
            raise next(iter(failures.values()))

    async def _set_differing(
        self, certificates: Collection[Served], live: Mapping[str, str], files: Mapping[str, str]
    ) -> dict[str, PaasdError]:
        """What the edge refused, by id. Raises EdgeError when it does not answer."""
        failures: dict[str, PaasdError] = {}
        pointed = await self._pairs("names")
        for each in certificates:
            try:
                text = each.text()
                right = live.get(each.id) == hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
                named = all(pointed.get(name) == each.id for name in each.names)
                if not right or not named or files.get(each.id) != text:
                    await self._set(each)
            except (Refused, InvalidInput) as error:
                failures[each.id] = error
        return failures

    async def certificates(self) -> set[str]:
        """Ids of what the running Nginx has."""
        return set(await self._pairs("certificates"))

    async def staple(self, id: str) -> Staple | None:
        """What was said of a certificate (OCSP), perhaps out of date."""
        return await self._staples.of(id)

    async def put_staple(self, id: str, staple: Staple) -> None:
        """Show it with a certificate from the next handshake on, until it is out of date; one that tells of a
        revocation is kept and not shown."""
        async with self._changing:
            await self._staples.put(id, staple)

    async def remove_staple(self, id: str) -> None:
        async with self._changing:
            await self._staples.remove(id)

    async def set_challenge(self, token: str, answer: str) -> None:
        """Answer an ACME challenge of the type HTTP-01 at every host name, for an hour at most."""
        if not _TOKEN.fullmatch(token):
            raise InvalidInput("the token of an ACME challenge is not base64url")
        await self._control.put(f"challenges/{token}", answer)

    async def remove_challenge(self, token: str) -> None:
        await self._control.delete(f"challenges/{token}")

    async def _set(self, certificate: Served) -> None:
        text, path = certificate.text(), self._path(certificate.id)
        try:
            await asyncio.to_thread(prepare_file, path, text)
            await self._control.put(f"certificates/{certificate.id}", text)
            await asyncio.to_thread(commit_file, path)
        except BaseException:
            await asyncio.to_thread(discard_file, path)  # it has the key
            raise
        await asyncio.to_thread(self._list, certificate.id)

    async def _remove(self, id: str) -> None:
        await asyncio.to_thread(self._unlist, id)
        await self._staples.remove(id)
        await self._control.delete(f"certificates/{id}")

    async def _sync_redirects(self, redirects: Mapping[str, Collection[str]]) -> None:
        wanted = {app_name(app): " ".join(sorted(hosts)) for app, hosts in redirects.items() if hosts}
        live = await self._pairs("redirects")
        for app in wanted.keys() | live.keys():
            if live.get(app) != wanted.get(app):
                await self._control.put(f"redirects/{app}", wanted.get(app, ""))
        text = "".join(f"{app} {hosts}\n" for app, hosts in sorted(wanted.items()))
        if await asyncio.to_thread(read_text, self._redirects) != text:
            await asyncio.to_thread(replace_file, self._redirects, text)

    async def _pairs(self, what: str) -> dict[str, str]:
        lines = (await self._control.get(what)).splitlines()
        return {key: value for key, _, value in (line.partition(" ") for line in lines)}

    def _files(self) -> dict[str, str]:
        return {path.stem: read_text(path) or "" for path in self._directory.glob("*.pem")}

    def _listed(self) -> list[str]:
        return (read_text(self._index) or "").split()

    def _list(self, id: str) -> None:
        if id not in (listed := self._listed()):
            self._write_index([*listed, id])

    def _unlist(self, id: str) -> None:
        listed = self._listed()
        if id in listed:
            self._write_index([other for other in listed if other != id])
        with contextlib.suppress(FileNotFoundError):
            self._path(id).unlink()

    def _write_index(self, ids: Collection[str]) -> None:
        text = "".join(f"{id}\n" for id in sorted(ids))
        if read_text(self._index) != text:
            replace_file(self._index, text)

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}.pem"
