"""What an app runs when, and how that went."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import web

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.run import stream_run
from paasd.api.v1.shapes import instant, run_shape
from paasd.cron import Cron
from paasd.cron_entries import Concurrency, CronEntries, Entry, NewEntry, Origin
from paasd.errors import InvalidInput, NotFound
from paasd.identity.policy import Action
from paasd.names import shown
from paasd.one_off import OneOffs
from paasd.run.runs import Run, Runs, RunStatus
from paasd.schedules import checked, checked_zone

_MAX_COMMAND = 4096


class NewCronEntry(Body):
    """`schedule`: five fields, or a name such as @daily; `command`: shell text."""

    schedule: str
    command: str
    timezone: str = "UTC"
    concurrency: Literal["allow", "forbid", "replace"] = "allow"


class CronChange(Body):
    suspended: bool


class CronResource:
    def __init__(self, cron: Cron, entries: CronEntries, runs: Runs, one_offs: OneOffs) -> None:
        self._cron = cron
        self._entries = entries
        self._runs = runs
        self._one_offs = one_offs

    def operations(self) -> Sequence[Operation]:
        path, read, change = "/apps/{app}/cron", Action.APP_READ, Action.RUN
        one = f"{path}/{{number}}"
        return [
            Operation("GET", path, read, self.listing, "What the app runs when, and the last run of each"),
            Operation("POST", path, change, self.add, "Run a command on a schedule", NewCronEntry),
            Operation("DELETE", one, change, self.remove, "Take an entry away that is not of app.json"),
            Operation("PATCH", one, change, self.suspend, "Suspend an entry, or let it go on", CronChange),
            Operation("POST", f"{one}/runs", change, self.run, "Run an entry's command now"),
            Operation("GET", f"{one}/runs", read, self.history, "Runs of an entry (0: of all), newest first"),
            Operation(
                "GET",
                f"{one}/logs",
                read,
                self.logs,
                "What the newest run of an entry wrote, as ndjson; `tail=N`, `follow=1`",
            ),
        ]

    async def listing(self, call: Call) -> dict[str, Any]:
        await self._cron.sync(call.app)
        return {"items": [await self._shape(call, entry) for entry in await self._entries.of(call.app)]}

    async def add(self, call: Call) -> dict[str, Any]:
        body: NewCronEntry = call.body
        if not body.command.strip() or "\0" in body.command or len(body.command) > _MAX_COMMAND:
            raise InvalidInput("there is no command to run, or it is too long")
        schedule, zone = await asyncio.to_thread(_checked, body.schedule, body.timezone)
        new = NewEntry(Origin.COMMAND, schedule, body.command.strip(), zone, Concurrency(body.concurrency))
        return await self._shape(call, await self._cron.add(call.actor, call.app, new))

    async def remove(self, call: Call) -> dict[str, Any]:
        number = call.number("number")
        await self._cron.remove(call.actor, call.app, number)
        return {"number": number}

    async def suspend(self, call: Call) -> dict[str, Any]:
        entry = await self._cron.suspend(call.actor, call.app, call.number("number"), call.body.suspended)
        return await self._shape(call, entry)

    async def run(self, call: Call) -> dict[str, Any]:
        return run_shape(await self._cron.run_now(call.actor, call.app, call.number("number")))

    async def history(self, call: Call) -> dict[str, Any]:
        number = call.number("number") or None
        found = await self._runs.of(
            call.app, cron_entry=number, scheduled=True, before=call.number("before"), limit=call.limit()
        )
        before = found[-1].number if len(found) == call.limit() else None
        return {"items": [run_shape(run) for run in found], "before": before}

    async def logs(self, call: Call) -> web.StreamResponse:
        number = call.number("number")
        found = await self._runs.of(call.app, cron_entry=number, scheduled=True)
        run = next((run for run in found if run.status not in (RunStatus.MISSED, RunStatus.SKIPPED)), None)
        if run is None:
            raise NotFound(
                f"entry {number} of {call.app.name} has not run yet",
                hint=f"Run it now: cron:run {call.app.name} {number}",
            )
        return await stream_run(call, self._one_offs, run, call.number("tail", 1000))

    async def _newest(self, call: Call, number: int) -> Run | None:
        found = await self._runs.of(call.app, cron_entry=number, scheduled=True, limit=1)
        return found[0] if found else None

    async def _shape(self, call: Call, entry: Entry) -> dict[str, Any]:
        last = await self._newest(call, entry.number)
        return {
            "number": entry.number,
            "schedule": entry.schedule,
            "command": entry.command,
            "timezone": entry.timezone,
            "concurrency": entry.concurrency,
            "origin": entry.origin,
            "suspended": entry.suspended,
            "next_at": instant(entry.next_at),
            "last": run_shape(last) if last else None,
            "created_by": entry.created_by,
            "created_at": instant(entry.created_at),
        }


def _checked(schedule: str, zone: str) -> tuple[str, str]:
    """Raises InvalidInput."""
    try:
        text = checked(schedule)
    except ValueError as error:
        raise InvalidInput(f"the schedule must be {error}, not {shown(schedule)}") from None
    try:
        return text, checked_zone(zone)
    except ValueError as error:
        raise InvalidInput(f"the timezone must be {error}, not {shown(zone)}") from None
