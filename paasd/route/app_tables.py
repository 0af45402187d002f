"""What the edge does for each app, live: its policy, and the pages that it has in place of the edge's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from paasd.edge_values import Site
from paasd.errors import InvalidSite
from paasd.names import app_name
from paasd.route.control import ControlSocket, Refused
from paasd.route.live_table import LiveTable

_log = logging.getLogger(__name__)

_LONGEST_POLICY = 64 * 1024


class AppTables:
    """Two tables of Nginx by app, with their mirrors in `directory`."""

    def __init__(self, control: ControlSocket, directory: Path) -> None:
        self.policies = LiveTable(control, "policies", directory / "policies.txt")
        self.pages = LiveTable(control, "pages", directory / "pages.txt")

    def check(self, site: Site) -> None:
        """Raises InvalidSite when more was set for the app than it has room for."""
        if len(site.policy) > _LONGEST_POLICY:
            raise InvalidSite(
                f"what is set for {site.app} at the edge is {len(site.policy) // 1024} KiB long,"
                f" {_LONGEST_POLICY // 1024} KiB are possible",
                hint="Set fewer or shorter ones. With auth.members on, each SSH key counts too: keys:list",
            )

    async def set(self, site: Site) -> None:
        """Raises InvalidSite when there is no room."""
        if site.pages or site.app in await self.pages.live():
            try:
                await self.pages.change({site.app: site.pages or None})
            except Refused as error:
                raise InvalidSite("there is no room for more pages of apps", hint="Make the page smaller.") from error
        try:
            await self.policies.change({site.app: site.policy or None})
        except Refused as error:
            raise InvalidSite(
                "there is no room for more settings of apps", hint="Set fewer or shorter ones."
            ) from error

    async def add(self, sites: Sequence[Site]) -> None:
        """What these have, before host names move: names that have a policy by another app's keep that until then.
        Without its pages an app is served all the same, with the edge's own."""
        await self.policies.add(_policies(sites))
        try:
            await self.pages.sync(_pages(sites))
        except Refused as error:
            _log.warning("pages of apps: %s", error.detail)

    async def keep_only(self, sites: Sequence[Site]) -> None:
        """After host names have moved."""
        await self.policies.sync(_policies(sites))

    async def remove(self, app: str) -> None:
        await self.policies.change({app_name(app): None})
        await self.pages.change({app: None})

    def seed(self, sites: Sequence[Site]) -> None:
        """Write the mirrors of an edge that does not run yet."""
        self.policies.seed(_policies(sites))

    async def differences(self, sites: Sequence[Site]) -> list[str]:
        """Where the tables are not as these sites say."""
        policies, pages = await self.policies.live(), await self.pages.live()
        found = [f"the policy of {app} is not the one that was set" for app in _unequal(_policies(sites), policies)]
        return found + [f"the pages of {app} are not those that were set" for app in _unequal(_pages(sites), pages)]


def _policies(sites: Sequence[Site]) -> dict[str, str]:
    return {site.app: site.policy for site in sites if site.policy}


def _pages(sites: Sequence[Site]) -> dict[str, str]:
    return {site.app: site.pages for site in sites if site.pages}


def _unequal(wanted: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    return sorted(app for app in wanted.keys() | present.keys() if wanted.get(app) != present.get(app))
