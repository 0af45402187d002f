"""Server blocks of apps: tested one by one, so that a broken one cannot touch the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from paasd.edge_values import Site
from paasd.errors import EdgeError, InvalidSite
from paasd.route.files import read_text
from paasd.route.nginx import Nginx
from paasd.route.sites import SiteFiles

_log = logging.getLogger(__name__)

Texts = Mapping[str, str | None]
"""Server blocks by app; None for those that need none."""


class Blocks:
    def __init__(self, files: SiteFiles, nginx: Nginx) -> None:
        self._files = files
        self._nginx = nginx
        self._candidates = nginx.layout.test / "sites"
        self.include = [str(files.directory / "*.conf")]
        self._good: dict[str, str] = {}
        """What Nginx took, by app: to put right what others do to the files."""

    def render_all(self, sites: Iterable[Site]) -> tuple[dict[str, str | None], dict[str, str]]:
        """Texts by app, and reasons by app that cannot be rendered."""
        texts: dict[str, str | None] = {}
        refused: dict[str, str] = {}
        for site in sites:
            try:
                texts[site.app] = self._files.render(site)
            except InvalidSite as error:
                refused[site.app] = error.detail
        return texts, refused

    async def test(self, sites: Sequence[Site], texts: Texts) -> dict[str, str]:
        """Let Nginx test texts that differ from their files, outside of what serves. Returns why it refuses some; those
        are set aside."""
        await asyncio.to_thread(self._files.prepare, sites)
        differing = {
            app: text
            for app, text in texts.items()
            if text is not None and await asyncio.to_thread(self._files.read, app) != text
        }
        if not differing:
            return {}
        await self.repair()
        await asyncio.to_thread(self._write_candidates, differing)
        present = await asyncio.to_thread(self._files.apps)
        good = [
            str(self._files.path(app)) for app in present if app not in differing and texts.get(app, "") is not None
        ]
        if await self._nginx.test([*good, str(self._candidates / "*.conf")]) is None:
            return {}
        refused = {}
        for app, text in differing.items():
            candidate = str(self._candidates / f"{app}.conf")
            if (reason := await self._nginx.test([*good, candidate])) is None:
                good.append(candidate)
            else:
                refused[app] = reason.replace(f"{self._candidates}/", "")
                await asyncio.to_thread(self._files.set_aside, app, text, refused[app])
        return refused

    def write(self, texts: Texts) -> None:
        """Make the files as these texts, which were tested."""
        for app, text in texts.items():
            if text is None:
                self._good.pop(app, None)
                self._files.remove(app)
            else:
                self._good[app] = text
                self._files.write(app, text)

    async def repair(self) -> None:
        """Put right what others did to our files: one that Nginx would refuse, by itself or beside those before it, is
        written again, or set aside. Raises EdgeError when that does not help."""
        if await self._nginx.test(self.include) is None:
            return
        await self._refuse_without_blocks()
        good: list[str] = []
        for app in await asyncio.to_thread(self._files.apps):
            path = self._files.path(app)
            if (reason := await self._nginx.test([*good, str(path)])) is not None:
                await self._set_aside(app, path, reason)
                if not path.exists() or await self._nginx.test([*good, str(path)]) is not None:
                    path.unlink(missing_ok=True)
                    continue
            good.append(str(path))
        if (reason := await self._nginx.test(self.include)) is not None:
            raise EdgeError(f"Nginx refuses its configuration: {reason}")

    async def _refuse_without_blocks(self) -> None:
        """What is wrong with the main configuration is no block's fault. Raises EdgeError."""
        if (reason := await self._nginx.test([])) is not None:
            raise EdgeError(f"Nginx refuses its configuration: {reason}")

    async def _set_aside(self, app: str, path: Path, reason: str) -> None:
        text = await asyncio.to_thread(read_text, path) or ""
        await asyncio.to_thread(self._files.remove, app)
        if app in self._good:
            await asyncio.to_thread(self._files.write, app, self._good[app])
        await asyncio.to_thread(self._files.set_aside, app, text, reason)

    def remove_strays(self, apps: Collection[str]) -> None:
        """Whatever is no file of one of these apps, in quarantine too."""
        for app in self._files.quarantined():
            if app not in apps:
                self._files.remove(app)
        for path in self._files.strays():
            try:
                path.unlink()
            except OSError as error:
                _log.warning("%s, which nobody wants, cannot be removed: %s", path, error.strerror)

    def differences(self, sites: Iterable[Site]) -> list[str]:
        texts, _ = self.render_all(sites)
        found = [
            f"the server block of {app} is {'missing' if self._files.read(app) is None else 'another one'}"
            for app, text in texts.items()
            if text is not None and self._files.read(app) != text
        ]
        found += [f"the server block of {app} is not wanted" for app in self._files.apps() if texts.get(app) is None]
        found += [f"the site of {app} is in quarantine: Nginx refuses it" for app in self._files.quarantined()]
        return found + [f"{path} was left half written" for path in self._files.strays()]

    def _write_candidates(self, texts: Mapping[str, str]) -> None:
        self._candidates.mkdir(exist_ok=True)
        for path in self._candidates.iterdir():
            path.unlink()
        for app, text in texts.items():
            (self._candidates / f"{app}.conf").write_text(text)
