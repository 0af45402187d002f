"""How an app's releases go live: the family `deploy` of the app's settings."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from paasd import deploy_windows
from paasd.app_settings import AppSettings, Family, Key, duration, one_of
from paasd.config import RunConfig
from paasd.database import Database
from paasd.deploy_windows import Window
from paasd.models import Actor, App

COMMAND = "deploy:set"
_CHOOSER = re.compile(r"header:[A-Za-z0-9-]{1,60}|cookie:[A-Za-z0-9_]{1,60}", re.IGNORECASE)
_STEPS = re.compile(r"\d{1,3}(,\d{1,3}){0,9}")


class Strategy(StrEnum):
    """How the instances of a release take over from those of the one before."""

    ROLLING = "rolling"
    """Beside the old ones, then one switch of all of them (blue-green)."""
    RECREATE = "recreate"
    """After the old ones have ended, for apps that must not run twice."""
    CANARY = "canary"
    """Beside the old ones, with a growing share of the requests."""


def _strategy(value: str) -> str:
    return one_of(*Strategy)({"blue-green": "rolling"}.get(value.strip().lower(), value))


def _steps(value: str) -> str:
    text = value.replace(" ", "").replace("%", "")
    steps = [int(step) for step in text.split(",")] if _STEPS.fullmatch(text) else []
    if not steps or steps != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] <= 100:
        raise ValueError("growing percentages of the requests, such as 5,25,50,100")
    return ",".join(str(step) for step in steps)


def _chooser(value: str) -> str:
    if not _CHOOSER.fullmatch(value.strip()):
        raise ValueError("header:NAME or cookie:NAME")
    return value.strip().lower()


KEYS: Mapping[str, Key] = {
    "strategy": Key(
        _strategy, "rolling (blue-green), canary, or recreate: the old instances end before the new start."
    ),
    "drain": Key(duration(0, 3600), "Time that old instances get to finish their requests."),
    "stream-drain": Key(duration(0, 86400), "The same for WebSockets and event streams."),
    "stop-timeout": Key(duration(1, 600), "Time between SIGTERM and SIGKILL."),
    "start-timeout": Key(duration(1, 3600), "Time that all instances of a deployment have to become healthy."),
    "script-timeout": Key(duration(1, 86400), "Time that the release task and the scripts of app.json may take, each."),
    "watch": Key(
        duration(0, 86400), "Time after a deployment in which crashes and errors bring the old release back; 0: never."
    ),
    "windows": Key(deploy_windows.checked, "When deployments are taken, such as Mon-Fri 09:00-17:00 Europe/Berlin."),
    "canary-steps": Key(_steps, "Shares of the requests that a canary gets, in percent."),
    "canary-time": Key(duration(1, 86400), "Time of each step of a canary."),
    "canary-by": Key(
        _chooser, "header:NAME or cookie:NAME; requests where it says always or never go to the canary or not."
    ),
}


@dataclass(frozen=True)
class DeploySettings:
    """Times in seconds."""

    strategy: Strategy
    drain: float
    stream_drain: float
    stop_timeout: int
    start_timeout: float
    script_timeout: float
    watch: float
    windows: tuple[Window, ...]
    canary_steps: tuple[int, ...]
    canary_time: float
    canary_by: str
    """`header:x-canary`, `cookie:canary` or nothing."""

    @property
    def canary_variable(self) -> str | None:
        """Nginx's name for what `canary_by` names."""
        kind, _, name = self.canary_by.partition(":")
        return {"header": "http_", "cookie": "cookie_"}[kind] + name.replace("-", "_") if name else None


class DeploymentSettings:
    """The app's own, over the box's."""

    def __init__(self, database: Database, run: RunConfig) -> None:
        self._settings = AppSettings(database, Family("deploy", COMMAND, "deployment setting", KEYS))
        self._defaults = {
            "strategy": Strategy.ROLLING,
            "drain": f"{run.drain:g}",
            "stream-drain": f"{run.stream_drain:g}",
            "stop-timeout": str(run.stop_timeout),
            "start-timeout": f"{run.start_timeout:g}",
            "script-timeout": str(run.release_timeout),
            "watch": f"{run.watch:g}",
            "windows": "",
            "canary-steps": "5,25,50,100",
            "canary-time": "60",
            "canary-by": "",
        }

    async def of(self, app: App) -> DeploySettings:
        values = {**self._defaults, **await self._settings.get(app)}
        return DeploySettings(
            strategy=Strategy(values["strategy"]),
            drain=float(values["drain"]),
            stream_drain=float(values["stream-drain"]),
            stop_timeout=max(1, round(float(values["stop-timeout"]))),
            start_timeout=float(values["start-timeout"]),
            script_timeout=float(values["script-timeout"]),
            watch=float(values["watch"]),
            windows=await asyncio.to_thread(deploy_windows.parse, values["windows"]) if values["windows"] else (),
            canary_steps=tuple(int(step) for step in values["canary-steps"].split(",")),
            canary_time=float(values["canary-time"]),
            canary_by=values["canary-by"],
        )

    async def report(self, app: App) -> dict[str, dict[str, str]]:
        """Value and origin by key: what was set, else the box's."""
        own = await self._settings.get(app)
        return {
            key: {"value": own.get(key, self._defaults[key]), "origin": COMMAND if key in own else "default"}
            for key in KEYS
        }

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None]) -> None:
        """All changes or none; None or an empty value takes a setting away. Raises InvalidInput."""
        await self._settings.change(actor, app, changes)
