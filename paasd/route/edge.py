"""The edge: what Nginx serves, changed live where that is possible.

Owns everything in its directory. Host names, policies and routes are tables in Nginx's shared memory with a mirror on
disk; apps that need Nginx configuration of their own have a server block each, tested by itself, and reloaded."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from paasd.config import HttpConfig
from paasd.edge_values import InFlight, Route, Site
from paasd.errors import InvalidSite, NotFound
from paasd.gateway.breaker import BreakerState, parse_breakers
from paasd.names import app_name
from paasd.route.access_logs import AccessLogs
from paasd.route.app_tables import AppTables
from paasd.route.blocks import Blocks
from paasd.route.control import AppCounters, ControlSocket, parse_counters, parse_route, route_line
from paasd.route.edge_logs import EdgeLogs
from paasd.route.edge_tls import EdgeTls
from paasd.route.hosts import all_lines, apart_from, app_of, check_free, host_lines, is_own, set_apart
from paasd.route.live_table import LiveTable
from paasd.route.loading import Loading
from paasd.route.nginx import Nginx
from paasd.route.sites import SiteFiles

_log = logging.getLogger(__name__)

_HIDDEN = re.compile(r'[$]pbkdf2-[^"]*|(?<="key":")[^"]*')  # hashes of passwords, keys of sessions: nobody's to see
_AGEING = 600.0


class Edge:
    """One Nginx with all that it serves. Safe to call from many tasks; changes happen one after another."""

    def __init__(self, directory: Path, templates: Path, http: HttpConfig, *, user: str | None = None) -> None:
        directory = directory.absolute()
        self._nginx = Nginx(directory, templates.absolute(), http, user)
        self._files = SiteFiles(directory, templates.absolute(), http)
        self._blocks = Blocks(self._files, self._nginx)
        self._control = ControlSocket(self._nginx.layout.control)
        self._loading = Loading(self._nginx, self._files, self._blocks, self._control)
        self.tls = EdgeTls(self._nginx.layout.tls, self._control)
        self._hosts = LiveTable(self._control, "hosts", directory / "hosts.txt")
        self._tables = AppTables(self._control, directory)
        self._routes = LiveTable(self._control, "routes", directory / "routes.txt")
        self.logs = EdgeLogs(AccessLogs(directory / "access"), self._nginx.layout.error_log, self._hosts)
        self._aged = float("-inf")
        self._changing_sites = asyncio.Lock()

    async def start(self, sites: Sequence[Site] = ()) -> None:
        """Bring Nginx up with the configuration of this version; one that runs already is kept, and reloaded only if
        the main configuration changed. `sites` are served from the first moment where an older version had no tables.
        Raises EdgeError, naming who holds the port if that is why."""
        async with self._changing_sites:
            await asyncio.to_thread(self._create_directories)
            if await asyncio.to_thread(self._hosts.is_new):
                await asyncio.to_thread(self._seed, sites)
            else:
                await asyncio.to_thread(self._renew_blocks, sites)
            await asyncio.to_thread(self.logs.access.prepare, await self._nginx.worker_uid())
            await self._nginx.write_config(self._loading.include)
            await self._loading.make_effective()

    async def stop(self) -> None:
        """End Nginx; requests get a moment to finish."""
        async with self._changing_sites:
            await self._nginx.stop()

    async def ensure_running(self) -> bool:
        """Start Nginx again if it died. True if it had. Also keeps its log small."""
        async with self._changing_sites:
            if await asyncio.to_thread(self._nginx.master) is not None:
                await asyncio.to_thread(self._nginx.rotate_log)
                await self._age_logs()
                return False
            await self._loading.start()
            return True

    async def _age_logs(self) -> None:
        if time.monotonic() >= self._aged + _AGEING:
            self._aged = time.monotonic()
            await asyncio.to_thread(self.logs.access.age)

    async def set_site(self, site: Site, instead_of: str = "") -> bool:
        """Make `site` effective, taking over what the app had that was called `instead_of`. True if that took a reload.
        Raises InvalidSite; what served before still serves."""
        host_lines(site), self._files.render(site)  # refused before anything is asked of Nginx
        self._tables.check(site)
        async with self._changing_sites:
            await self._loading.ensure_started()
            live = await self._hosts.live()
            others = {name: line for name, line in live.items() if app_of(line) not in (site.app, instead_of)}
            site = apart_from(
                site, {name: app_of(line) for name, line in others.items() if name[0] == "*" and is_own(line)}
            )
            lines, text = host_lines(site), self._files.render(site)
            check_free(site.app, lines, others)
            texts = {site.app: text} | ({instead_of: None} if instead_of else {})
            if refused := await self._blocks.test([site], texts):
                raise InvalidSite(f"Nginx refuses the site of {site.app}: {refused[site.app]}")
            await self._tables.set(site)
            return await self._apply(others | lines, live, texts)

    async def remove_site(self, app: str) -> None:
        """Stop serving an app's host names and forget its counters."""
        async with self._changing_sites:
            await self._loading.ensure_started()
            live = await self._hosts.live()
            wanted = {name: line for name, line in live.items() if app_of(line) != app}
            await self._apply(wanted, live, {app: None})
            await self._tables.remove(app)
            await self._control.delete(f"counters/{app}")  # after that no worker has lines of it
            await asyncio.to_thread(self.logs.access.remove, app)

    async def forget(self, app: str) -> None:
        """What was logged of requests to whoever had the name before."""
        await asyncio.to_thread(self.logs.access.remove, app_name(app))

    async def sync_sites(self, sites: Sequence[Site]) -> dict[str, str]:
        """Make the sites equal these, with one reload at most. Returns why some apps are in quarantine: what they had
        before still serves."""
        async with self._changing_sites:
            await self._loading.ensure_started()
            sites = set_apart(sites)
            wanted, refused = all_lines(sites)
            good = [site for site in sites if site.app not in refused]
            texts, badly = self._blocks.render_all(good)
            refused |= badly | await self._blocks.test(good, texts)
            live = await self._hosts.live()
            wanted = {name: line for name, line in wanted.items() if app_of(line) not in refused}
            kept = {name: line for name, line in live.items() if app_of(line) in refused and name not in wanted}
            await self._tables.add(sites)
            present = await asyncio.to_thread(self._files.apps)
            gone = dict.fromkeys(app for app in present if app not in {site.app for site in sites})
            texts = {app: text for app, text in texts.items() if app not in refused}
            await self._apply(wanted | kept, live, texts | gone)
            await self._tables.keep_only(sites)
            await asyncio.to_thread(self._blocks.remove_strays, {site.app for site in sites})
            await asyncio.to_thread(self.logs.access.keep_only, {site.app for site in sites})
            return refused

    async def site_config(self, app: str) -> str:
        """Text of an app's server block if it has one, then what the tables have of it. Raises NotFound."""
        block = await asyncio.to_thread(self._files.read, app)
        hosts = [f"{name} {line}" for name, line in (await self._hosts.live()).items() if app_of(line) == app]
        if block is None and not hosts:
            raise NotFound(f"the edge has no site for {app}")
        tables = {"host": sorted(hosts)}
        for name, table in (("route", self._routes), ("policy", self._tables.policies)):
            tables[name] = [line for key, line in (await table.live()).items() if key == app]
        text = block or f"# {app} needs no server block of its own.\n"
        text += "".join(f"# {name} {line}\n" for name, lines in tables.items() for line in lines)
        return _HIDDEN.sub("****", text)

    async def differences(self, sites: Sequence[Site]) -> list[str]:
        """Where tables and files are not as these sites say."""
        async with self._changing_sites:
            sites = set_apart(sites)
            wanted, refused = all_lines(sites)
            live = await self._hosts.live()
            found = [f"{name} is not served as {line}" for name, line in wanted.items() if live.get(name) != line]
            found += [f"{name} is served but nobody has it" for name in sorted(live.keys() - wanted.keys())]
            found += await self._tables.differences(sites)
            found += [f"the site of {app} is not possible: {reason}" for app, reason in refused.items()]
            return found + await asyncio.to_thread(self._blocks.differences, sites)

    async def set_route(self, route: Route) -> None:
        """Send an app's requests to these endpoints from now on. Nothing changes if this raises."""
        await self._routes.change({route.app: route_line(route)})

    async def remove_route(self, app: str) -> None:
        await self._routes.change({app_name(app): None})

    async def routes(self) -> dict[str, Route]:
        """What the running Nginx has."""
        return {app: parse_route(app, line) for app, line in (await self._routes.live()).items()}

    async def counters(self) -> dict[str, AppCounters]:
        """By app, of that under `<app>~` what canaries had and under `<app>!` what came while the app had no endpoint;
        everything that ended before this call is counted."""
        return parse_counters(await self._control.get("counters"))

    async def further_counters(self, app: str = "") -> dict[str, AppCounters]:
        """Of one app or all, what is counted besides: under `<app>:/api` what was asked below that path."""
        return parse_counters(await self._control.get(f"further-counters/{app}" if app else "further-counters"))

    async def breakers(self) -> dict[str, BreakerState]:
        """By app, of those that have one and were asked lately."""
        return parse_breakers(await self._control.get("breakers"))

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

    async def _apply(self, wanted: Mapping[str, str], live: Mapping[str, str], texts: Mapping[str, str | None]) -> bool:
        """Host names as `wanted` and server blocks as `texts`; True if that took a reload. What belongs to a block is
        served by nothing else at any moment: it is told of only once its block is there."""
        early = {name: live.get(name) if is_own(line) else line for name, line in wanted.items()}
        await self._hosts.sync({name: line for name, line in early.items() if line is not None})
        await asyncio.to_thread(self._blocks.write, texts)
        reloaded = await self._loading.make_effective()
        await self._hosts.sync(wanted)
        return reloaded

    def _renew_blocks(self, sites: Sequence[Site]) -> None:
        """As this version writes them: what an older one wrote may name files that are gone."""
        present = set(self._files.apps())
        good = [site for site in set_apart(sites) if site.app in present]
        texts, _ = self._blocks.render_all(good)
        self._files.prepare(good)
        self._blocks.write({app: text for app, text in texts.items() if text is not None})

    def _seed(self, sites: Sequence[Site]) -> None:
        sites = set_apart(sites)
        lines, refused = all_lines(sites)
        good = [site for site in sites if site.app not in refused]
        texts, _ = self._blocks.render_all(good)
        self._files.prepare(good)
        self._blocks.write(dict.fromkeys(self._files.apps()) | texts)
        self._tables.seed(good)
        self._hosts.seed(lines)  # last: a start that ends before this begins anew

    def _create_directories(self) -> None:
        self._nginx.create_directories()
        self._files.create()
        for path in [*self._nginx.layout.directory.glob(".*.new"), *self._nginx.layout.tls.glob(".*.new")]:
            path.unlink()
