"""What an app's instances and one-off commands may use: the family `resource` of the app's settings.

A key is `memory`, `cpu`, `pids` or `reserve-memory` for all process types, or `worker.memory` and so on for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from paasd.app_settings import AppSettings, Family, Key, whole
from paasd.config import RunConfig
from paasd.database import Database
from paasd.errors import InvalidInput
from paasd.models import Actor, App, Limits
from paasd.names import process_type
from paasd.quota_gate import Gate, unlimited

LIMITS = ("memory", "cpu", "pids")
RESERVATIONS = ("reserve-memory",)

_MEMORY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([kmgt]?)i?b?")
_FACTORS = {"": 1024**2, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_LEAST_MEMORY = 8 * 1024**2
_CPUS = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?")


def bytes_of(value: str) -> int:
    """A plain number is megabytes, as on Dokku."""
    found = _MEMORY.fullmatch(value.strip().lower())
    return round(float(found[1]) * _FACTORS[found[2]]) if found else 0


def _memory(value: str) -> str:
    """In the largest unit that is whole."""
    size = bytes_of(value)
    if size < _LEAST_MEMORY:
        raise ValueError(f"a size such as 512m or 1g, at least {shown_size(_LEAST_MEMORY)}")
    return next(f"{size // _FACTORS[unit]}{unit}" for unit in "tgmk" if not size % _FACTORS[unit] or unit == "k")


def _cpu(value: str) -> str:
    if not _CPUS.fullmatch(value.strip()) or float(value) < 0.01:
        raise ValueError("a number of cores such as 0.5 or 2, at least 0.01")
    return f"{float(value):g}"


KINDS: Mapping[str, Key] = {
    "memory": Key(_memory, "Memory of an instance, without swap; it is killed when it wants more."),
    "cpu": Key(_cpu, "Cores of an instance."),
    "pids": Key(whole(8, 65536, "a number of processes and threads"), "Processes and threads of an instance."),
    "reserve-memory": Key(_memory, "Memory that an instance keeps when the box runs short of it."),
}


class _Keys(Mapping[str, Key]):
    """Every kind, alone or behind a process type."""

    def __getitem__(self, key: str) -> Key:
        process, _, kind = key.rpartition(".")
        if process:
            process_type(process)
        return KINDS[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


@dataclass(frozen=True)
class AppResources:
    """What was set for one app, over the box's defaults and under its maximum."""

    values: Mapping[str, str]
    default: Limits
    most: Limits

    def limits(self, process: str) -> Limits:
        """A maximum that was lowered later holds too."""
        set_memory = self._set("memory", process)
        memory = min(bytes_of(set_memory) if set_memory else self.default.memory, self.most.memory)
        cpus = min(float(self._set("cpu", process) or self.default.cpus), self.most.cpus)
        pids = int(self._set("pids", process) or self.default.pids)
        return Limits(memory, cpus, pids, min(self._reservation(process), memory))

    def origin(self, kind: str, process: str) -> str:
        """`process type`, `app` or `box`: what decides."""
        return next((o for o, k in (("process type", f"{process}.{kind}"), ("app", kind)) if k in self.values), "box")

    def process_types(self) -> list[str]:
        """Those with settings of their own."""
        return sorted({key.rpartition(".")[0] for key in self.values} - {""})

    def check(self) -> None:
        """Raises InvalidInput when something is over the maximum or contradicts itself."""
        for key, value in self.values.items():
            kind = key.rpartition(".")[2]
            if kind == "cpu" and float(value) > self.most.cpus:
                raise _over(key, value, f"{self.most.cpus:g} cores")
            if kind.endswith("memory") and bytes_of(value) > self.most.memory:
                raise _over(key, value, shown_size(self.most.memory))
        for process in ["", *self.process_types()]:
            self._check_reservation(process)

    def _check_reservation(self, process: str) -> None:
        wanted, limit = self._reservation(process), self.limits(process).memory
        if wanted > limit:
            raise InvalidInput(
                f"{process or 'an instance'} would reserve {shown_size(wanted)} of at most {shown_size(limit)} memory",
                hint="Raise the limit first: resource:limit APP --memory SIZE",
            )

    def _reservation(self, process: str) -> int:
        return bytes_of(self._set("reserve-memory", process) or "")

    def _set(self, kind: str, process: str) -> str | None:
        return self.values.get(f"{process}.{kind}") or self.values.get(kind)


def box_limits(run: RunConfig) -> tuple[Limits, Limits]:
    """What an instance gets when nothing was set, and at most."""
    box_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = Limits(run.max_memory or box_memory, run.max_cpus or float(os.cpu_count() or 1))
    return Limits(run.memory, run.cpus, run.pids), most


class Resources:
    def __init__(self, database: Database, run: RunConfig, gate: Gate = unlimited) -> None:
        self._settings = AppSettings(database, Family("resource", "resource:limit", "resource", _Keys()))
        self._default, self._most = box_limits(run)
        self._gate = gate

    async def of(self, app: App) -> AppResources:
        return self._with(await self._settings.get(app))

    async def change(self, actor: Actor, app: App, changes: Mapping[str, str | None]) -> None:
        """All changes or none; None takes a setting away. They hold for what is started from now on.
        Raises InvalidInput, QuotaExceeded."""
        family = self._settings.family
        checked = {key: family.checked(key, value) if value else None for key, value in changes.items()}
        after = {**await self._settings.get(app), **checked}
        self._with({key: value for key, value in after.items() if value}).check()
        await self._settings.change(actor, app, checked, self._gate)

    async def clear(self, actor: Actor, app: App, kinds: tuple[str, ...], process: str | None) -> None:
        """Take settings away: of one process type, or of all and of the app."""
        present = await self._settings.get(app)
        wanted = [key for key in present if key.rpartition(".")[2] in kinds]
        if process:
            wanted = [key for key in wanted if key.rpartition(".")[0] == process]
        await self.change(actor, app, dict.fromkeys(wanted))

    def _with(self, values: Mapping[str, str]) -> AppResources:
        return AppResources(values, self._default, self._most)


def _over(key: str, value: str, most: str) -> InvalidInput:
    return InvalidInput(
        f"{key} {value} is more than an instance may have on this box ({most})",
        hint="An administrator sets the maximum: run.max_memory and run.max_cpus in paasd.toml.",
    )


def shown_size(size: int) -> str:
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} B"
