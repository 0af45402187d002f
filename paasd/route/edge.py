"""The edge: sites that are reloaded when they change, and routes that change live.

Owns everything in its directory. Sites are tested one by one, so that a broken one cannot touch the others; the route
table lives in Nginx's shared memory and has a mirror on disk for Nginx's own next start."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paasd import failpoints
from paasd.config import HttpConfig
from paasd.errors import EdgeError, InvalidSite, NotFound
from paasd.models import InFlight, Route, Site
from paasd.route.control import AppCounters, ControlSocket, parse_counters, parse_table, route_line, table_text
from paasd.route.edge_tls import EdgeTls
from paasd.route.nginx import Nginx, write_config
from paasd.route.sites import SiteFiles, commit_file, discard_file, prepare_file, read_text, replace_file

_START_TIMEOUT = 10.0
_RELOAD_TIMEOUT = 15.0


@dataclass(frozen=True)
class EdgeFiles:
    sites: list[str]
    """Apps that Nginx has a server block for."""
    quarantined: list[str]
    strays: list[str]
    """Half-written files and files of strangers."""


class Edge:
    """One Nginx with its sites and routes. Safe to call from many tasks; changes happen one after another."""

    def __init__(self, directory: Path, templates: Path, http: HttpConfig, *, user: str | None = None) -> None:
        directory = directory.absolute()
        self._nginx = Nginx(directory, templates.absolute(), http, user)
        self._files = SiteFiles(directory, templates, http)
        self._control = ControlSocket(self._nginx.control)
        self.tls = EdgeTls(self._nginx.tls, self._control)
        self._include = [str(self._files.directory / "*.conf")]
        self._candidates = directory / "test" / "sites"
        self._loaded = directory / "loaded"
        self._sites: dict[str, Site] = {}
        self._changing_sites = asyncio.Lock()
        self._changing_routes = asyncio.Lock()

    async def start(self) -> None:
        """Bring Nginx up with the configuration of this version; one that runs already is kept, and reloaded only if
        the main configuration changed. Raises EdgeError, naming who holds the port if that is why."""
        async with self._changing_sites:
            await asyncio.to_thread(self._create_directories)
            await write_config(self._nginx.config, await self._nginx.render(self._include))
            if await asyncio.to_thread(self._nginx.master) is None:
                await self._start()
            else:
                await self._make_effective()

    async def stop(self) -> None:
        """End Nginx; requests get a moment to finish."""
        async with self._changing_sites:
            await self._nginx.stop()

    async def ensure_running(self) -> bool:
        """Start Nginx again if it died. True if it had. Also keeps its log small."""
        async with self._changing_sites:
            if await asyncio.to_thread(self._nginx.master) is not None:
                await asyncio.to_thread(self._nginx.rotate_log)
                return False
            await self._start()
            return True

    async def set_site(self, site: Site) -> bool:
        """Make `site` effective. True if that took a reload. Raises InvalidSite; what served before still serves."""
        async with self._changing_sites:
            await asyncio.to_thread(self._files.prepare, [site])
            text = self._files.render(site, self._taken())
            refused: dict[str, str] = {}
            await self._write_changed({site.app: text}, refused)
            if refused:
                raise InvalidSite(f"Nginx refuses the site of {site.app}: {refused[site.app]}")
            self._sites[site.app] = site
            return await self._make_effective()

    async def remove_site(self, app: str) -> None:
        """Stop serving an app's domains and forget its counters."""
        async with self._changing_sites:
            self._sites.pop(app, None)
            await asyncio.to_thread(self._files.remove, app)
            await self._make_effective()
            await self._control.delete(f"counters/{app}")

    async def sync_sites(self, sites: Sequence[Site]) -> dict[str, str]:
        """Make the sites equal these, with one reload at most. Returns why some apps are in quarantine: their last
        good site, if any, still serves."""
        async with self._changing_sites:
            await asyncio.to_thread(self._files.prepare, sites)
            texts, refused = self._render_all(sites)
            await self._write_changed(texts, refused)
            self._sites = {site.app: site for site in sites if site.app not in refused}
            wanted = {site.app for site in sites}
            for app in await asyncio.to_thread(self._files.apps):
                if app not in wanted:
                    await asyncio.to_thread(self._files.remove, app)
            await asyncio.to_thread(self._remove_strays)
            await self._make_effective()
            return refused

    async def site_config(self, app: str) -> str:
        """Text of an app's server block. Raises NotFound."""
        text = await asyncio.to_thread(self._files.read, app)
        if text is None:
            raise NotFound(f"the edge has no site for {app}")
        return text

    async def files(self) -> EdgeFiles:
        """What lies in the edge's directories, when nothing is being changed."""
        async with self._changing_sites, self._changing_routes:
            return await asyncio.to_thread(self._list_files)

    async def set_route(self, route: Route) -> None:
        """Send an app's requests to these endpoints from now on. Nothing changes if this raises."""
        line = route_line(route)
        async with self._changing_routes:
            table = await self._mirrored()
            table[route.app] = route
            await self._change(table, lambda: self._control.put(f"routes/{route.app}", line))

    async def remove_route(self, app: str) -> None:
        async with self._changing_routes:
            table = await self._mirrored()
            table.pop(app, None)
            await self._change(table, lambda: self._control.delete(f"routes/{app}"))

    async def routes(self) -> dict[str, Route]:
        """What the running Nginx has."""
        return parse_table(await self._control.get("routes"))

    async def counters(self) -> dict[str, AppCounters]:
        """By app, of that under `<app>~` what canaries had and under `<app>!` what came while the app had no endpoint;
        everything that ended before this call is counted."""
        return parse_counters(await self._control.get("counters"))

    async def in_flight(self) -> dict[str, InFlight]:
        """What is under way by `address:port`; idle endpoints are left out. Everything that began before this call is
        counted."""
        lines = (await self._control.get("in-flight")).splitlines()
        return {name: InFlight(int(requests), int(streams)) for name, requests, streams in map(str.split, lines)}

    async def wanted(self, seconds: int) -> set[str]:
        """Sleeping apps that somebody asks for, as soon as there are any, after so many seconds none. What is told once
        is told again while requests wait for it."""
        answer = await self._control.get(f"wanted?seconds={seconds}", within=seconds + 5)
        return set(answer.split())

    async def not_woken(self, app: str, seconds: float) -> None:
        """For so long, or until it gets a route, requests to a sleeping app get a page that says so, and nobody is told
        of them."""
        await self._control.put(f"not-woken/{app}", f"{seconds:g}")

    def _create_directories(self) -> None:
        self._nginx.create_directories()
        self._files.create()
        for path in [*self._half_written(), *self._nginx.tls.glob(".*.new")]:
            path.unlink()

    async def _make_effective(self) -> bool:
        """Reload if Nginx does not run what lies on disk: asked from a record, since whoever wrote the files may have
        been killed before the reload. True if there was one."""
        if await asyncio.to_thread(read_text, self._loaded) == await asyncio.to_thread(self._fingerprint):
            return False
        if await asyncio.to_thread(self._nginx.master) is None:
            await self._start()
        else:
            await self._reload()
        return True

    async def _start(self) -> None:
        await self._repair()
        fingerprint = await asyncio.to_thread(self._fingerprint)
        await self._nginx.start()
        await self._wait_for_generation(1, _START_TIMEOUT)
        await asyncio.to_thread(self._nginx.protect_control)
        await asyncio.to_thread(replace_file, self._loaded, fingerprint)

    async def _reload(self) -> None:
        """Returns when no worker of an older configuration accepts connections any more."""
        await self._repair()
        fingerprint = await asyncio.to_thread(self._fingerprint)
        _, oldest = await self._control.generations()
        await asyncio.to_thread(self._nginx.reload)
        await self._wait_for_generation(oldest + 1, _RELOAD_TIMEOUT)
        await asyncio.to_thread(replace_file, self._loaded, fingerprint)

    def _fingerprint(self) -> str:
        return self._files.fingerprint(self._nginx.config)

    async def _wait_for_generation(self, wanted: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        seen = "no answer"
        while time.monotonic() < deadline:
            try:
                answering, oldest = await self._control.generations()
                if min(answering, oldest) >= wanted:
                    return
                seen = f"generation {oldest} still serves"
            except EdgeError as error:
                seen = error.detail
            await asyncio.sleep(0.01)
        reason = await asyncio.to_thread(self._nginx.last_errors) or seen
        raise EdgeError(f"Nginx did not take its configuration within {timeout:.0f} s: {reason}")

    async def _refusals(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Let Nginx test texts of sites outside of what serves. Returns why it refuses some; those are set aside."""
        await asyncio.to_thread(self._write_candidates, texts)
        if await self._nginx.test([str(self._candidates / "*.conf")]) is None:
            return {}
        refused = {}
        for app, text in texts.items():
            reason = await self._nginx.test([str(self._candidates / f"{app}.conf")])
            if reason is not None:
                refused[app] = reason.replace(f"{self._candidates}/", "")
                await asyncio.to_thread(self._files.set_aside, app, text, refused[app])
        return refused

    def _write_candidates(self, texts: Mapping[str, str]) -> None:
        self._candidates.mkdir(exist_ok=True)
        for path in self._candidates.iterdir():
            path.unlink()
        for app, text in texts.items():
            (self._candidates / f"{app}.conf").write_text(text)

    async def _repair(self) -> None:
        """Put right what others did to our files: a file that Nginx would refuse is rendered again, or set aside."""
        if await self._nginx.test(self._include) is None:
            return
        for app in await asyncio.to_thread(self._files.apps):
            path = self._files.path(app)
            reason = await self._nginx.test([str(path)])
            if reason is None:
                continue
            text = await asyncio.to_thread(read_text, path) or ""
            await asyncio.to_thread(self._files.remove, app)
            if app in self._sites:
                await asyncio.to_thread(self._files.prepare, [self._sites[app]])
                await asyncio.to_thread(self._files.write, app, self._files.render(self._sites[app], self._taken()))
            await asyncio.to_thread(self._files.set_aside, app, text, reason)
        if (reason := await self._nginx.test(self._include)) is not None:
            raise EdgeError(f"Nginx refuses its configuration: {reason}")

    def _taken(self) -> dict[str, str]:
        return {domain: site.app for site in self._sites.values() for domain in site.domains}

    def _render_all(self, sites: Sequence[Site]) -> tuple[dict[str, str], dict[str, str]]:
        """Texts by app, and reasons by app that cannot be rendered. Of two apps with one domain the first has it."""
        texts: dict[str, str] = {}
        refused: dict[str, str] = {}
        taken: dict[str, str] = {}
        for site in sites:
            try:
                texts[site.app] = self._files.render(site, taken)
                taken |= dict.fromkeys(site.domains, site.app)
            except InvalidSite as error:
                refused[site.app] = error.detail
        return texts, refused

    async def _write_changed(self, texts: Mapping[str, str], refused: dict[str, str]) -> None:
        """Test and write the texts that differ from their files; reasons go into `refused`."""
        differing = {app: text for app, text in texts.items() if await asyncio.to_thread(self._files.read, app) != text}
        bad = await self._refusals(differing) if differing else {}
        refused |= bad
        for app in differing.keys() - bad.keys():
            await asyncio.to_thread(self._files.write, app, differing[app])

    def _list_files(self) -> EdgeFiles:
        quarantined = sorted(path.stem for path in self._files.quarantine.glob("*.conf"))
        strays = [*self._files.strays(), *self._half_written()]
        return EdgeFiles(self._files.apps(), quarantined, [str(path) for path in strays])

    def _half_written(self) -> list[Path]:
        """By a daemon that was killed, or right now."""
        return list(self._loaded.parent.glob(".*.new"))

    def _remove_strays(self) -> None:
        for path in self._files.strays():
            path.unlink()

    async def _mirrored(self) -> dict[str, Route]:
        text = await asyncio.to_thread(read_text, self._nginx.mirror)
        return parse_table(text or "")

    async def _change(self, table: dict[str, Route], live: Callable[[], Awaitable[None]]) -> None:
        """Change the table live and in the mirror, or neither: what can fail of the mirror comes before the change."""
        mirror = self._nginx.mirror
        async with failpoints.call("disk", lambda: OSError(errno.EIO, "fault")):
            await asyncio.to_thread(prepare_file, mirror, table_text(table.values()))
        try:
            await live()
        except BaseException:
            await asyncio.to_thread(discard_file, mirror)
            raise
        async with failpoints.call("disk", lambda: OSError(errno.EIO, "fault")):
            await asyncio.to_thread(commit_file, mirror)
