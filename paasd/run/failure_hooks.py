"""What a failed health check sets off: `onFailure` of app.json. Never raises, and is over within seconds.

Dokku runs the command on the host. Here it runs inside the instance that failed: what comes from a repository has no
business on the host.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Any

import aiohttp

from paasd.checks import Check
from paasd.config import RunConfig
from paasd.drivers.base import Driver
from paasd.errors import InvalidInput, PaasdError
from paasd.models import App
from paasd.outbound import Pinned, look_up, may_reach
from paasd.run.instances import InstanceRow

_log = logging.getLogger(__name__)

_COMMAND_TIMEOUT, _POST_TIMEOUT = 10.0, 10.0
_AT_ONCE = 4
_MAX_TOLD = 500


class FailureHooks:
    def __init__(self, driver: Driver, config: RunConfig) -> None:
        self._driver = driver
        self._config = config
        self._running: Counter[str] = Counter()
        """By app id."""

    async def __call__(self, app: App, row: InstanceRow, check: Check, seen: str) -> list[str]:
        """The command first, then the URL, as Dokku does. What became of each, in words."""
        if not check.on_failure_command and not check.on_failure_url:
            return []
        if self._running[app.id] >= _AT_ONCE:
            return [f"onFailure was left out: {_AT_ONCE} of {app.name} are under way"]
        self._running[app.id] += 1
        try:
            return await self._both(app, row, check, seen)
        finally:
            self._running[app.id] -= 1
            if not self._running[app.id]:
                del self._running[app.id]

    async def _both(self, app: App, row: InstanceRow, check: Check, seen: str) -> list[str]:
        told = []
        if check.on_failure_command:
            told.append(f"onFailure {await self._run(row, check.on_failure_command)}")
        if check.on_failure_url:
            told.append(f"onFailure {await self._post(app, row, check, seen)}")
        for text in told:
            _log.info("%s: %s", row.name, text)
        return told

    async def _run(self, row: InstanceRow, command: tuple[str, ...]) -> str:
        what = f"command {' '.join(command)[:80]}"
        try:
            status, output = await self._driver.exec_once(row.name, command, _COMMAND_TIMEOUT)
        except TimeoutError:
            return f"{what} was ended after {_COMMAND_TIMEOUT:g} s"
        except PaasdError as error:
            return f"{what} could not be run: {error.detail}"
        said = " ".join(output.split())[:_MAX_TOLD]
        return f"{what} ended with status {status}" + (f": {said}" if said else "")

    async def _post(self, app: App, row: InstanceRow, check: Check, seen: str) -> str:
        url = check.on_failure_url
        body = {
            "check_name": check.name or check.what,
            "errors": [seen],
            "type": str(check.type),
            "app": app.name,
            "instance": f"{row.process_type}.{row.number}",
        }
        try:
            return f"POST {_origin(url)} answered {await self._answer(url, body)}"
        except PaasdError as error:
            return f"POST {_origin(url)} was not sent: {_told(error.detail)}"
        except (TimeoutError, OSError, aiohttp.ClientError, ValueError) as error:
            return f"POST {_origin(url)} failed: {_told(str(error)) or type(error).__name__}"

    async def _answer(self, url: str, body: dict[str, Any]) -> int:
        host, _, address = await look_up(url)
        if not may_reach(address, self._config.subnet_pool, self._config.hooks_to):
            raise InvalidInput(f"{host} is at {address}, which is no public address (run.hooks_to in paasd.toml)")
        connector = aiohttp.TCPConnector(resolver=Pinned(address), force_close=True)
        timeout = aiohttp.ClientTimeout(total=_POST_TIMEOUT)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            async with session.post(url, json=body, allow_redirects=False) as response:
                return response.status


def _told(error: str) -> str:
    """What repeats an address repeats its tokens."""
    return error[:_MAX_TOLD] if "://" not in error else "the address is not right"


def _origin(url: str) -> str:
    """Scheme and host: path, query and user may be tokens."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split(r'[/?#]', rest)[0].rpartition('@')[2]}"[:200]
