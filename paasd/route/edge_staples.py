"""What authorities said of certificates (OCSP), as the edge has it.

Owns `edge/tls/*.ocsp`, beside the certificates of the same ids: Nginx staples from them after a start of its own. An
answer that a certificate was revoked is kept there too, and never given to the edge."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from paasd.route.control import ControlSocket, Refused
from paasd.route.files import commit_file, discard_file, prepare_file, read_text

_log = logging.getLogger(__name__)

_ID = re.compile(r"[a-z0-9-]{1,64}")
_GOOD, _REVOKED = "good", "revoked"
_LINE = re.compile(rf"({_GOOD}|{_REVOKED}) ([0-9]+) ([0-9a-f]{{32}})\n([A-Za-z0-9+/=]+)\n")


@dataclass(frozen=True)
class Staple:
    """An answer that was checked. `until`: when it must not be served any more, in whole seconds."""

    until: int
    der: bytes
    revoked: bool = False

    def text(self, id: str) -> str:
        """The sum tells Nginx, which reads files without the daemon, of one cut short or put in another's place."""
        encoded, said = base64.b64encode(self.der).decode(), f"{_REVOKED if self.revoked else _GOOD} {self.until}"
        return f"{said} {_sum(f'{id} {said} {encoded}')}\n{encoded}\n"


def parse(id: str, text: str) -> Staple | None:
    """None for a damaged one."""
    if not (found := _LINE.fullmatch(text)):
        return None
    try:
        staple = Staple(int(found[2]), base64.b64decode(found[4]), found[1] == _REVOKED)
    except ValueError:
        return None
    return staple if staple.text(id) == text else None


class EdgeStaples:
    """Used by `edge_tls.py`, which makes changes happen one after another."""

    def __init__(self, directory: Path, control: ControlSocket) -> None:
        self._directory = directory
        self._control = control

    async def of(self, id: str) -> Staple | None:
        """Perhaps out of date; None also for a damaged one."""
        text = await asyncio.to_thread(read_text, self._path(id))
        return parse(id, text or "")

    async def put(self, id: str, staple: Staple) -> None:
        """From the next handshake on. Nothing changes if this raises."""
        if not _ID.fullmatch(id):
            raise ValueError(id)
        text, path = staple.text(id), self._path(id)
        try:
            await asyncio.to_thread(prepare_file, path, text)
            await self._tell(id, staple)
            await asyncio.to_thread(commit_file, path)
        except BaseException:
            await asyncio.to_thread(discard_file, path)
            raise

    async def remove(self, id: str) -> None:
        await asyncio.to_thread(self._path(id).unlink, missing_ok=True)
        await self._control.delete(f"staples/{id}")

    async def sync(self, certificates: Collection[str], now: float) -> None:
        """Make what is live equal the files of these certificates, and forget the others."""
        texts, live = await asyncio.to_thread(self._files), await self._live()
        for id in texts.keys() | live.keys():
            staple = parse(id, texts.get(id, ""))
            if id not in certificates or staple is None:
                await self.remove(id)
            elif live.get(id) != (None if staple.revoked or staple.until <= now else _sum(texts[id])):
                try:
                    await self._tell(id, staple)
                except Refused as error:
                    _log.error("nothing is stapled to the certificate %s: %s", id, error.detail)

    async def _tell(self, id: str, staple: Staple) -> None:
        if staple.revoked:
            await self._control.delete(f"staples/{id}")
        else:
            await self._control.put(f"staples/{id}", staple.text(id))

    async def _live(self) -> Mapping[str, str]:
        lines = (await self._control.get("staples")).splitlines()
        return {id: sum for id, _, sum in (line.partition(" ") for line in lines)}

    def _files(self) -> dict[str, str]:
        return {path.stem: read_text(path) or "" for path in self._directory.glob("[a-z0-9]*.ocsp")}

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}.ocsp"


def _sum(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
