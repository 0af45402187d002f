"""A command inside a running instance: `enter APP [web.1] [CMD…]`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from paasd import events
from paasd.database import Database
from paasd.drivers.base import Driver, OneOff
from paasd.errors import Conflict, NotFound
from paasd.models import Actor, App
from paasd.run.instances import InstanceRow, Instances

_TITLE = re.compile(r"[a-z0-9-]+\.[0-9]+")
_SHELL = ("/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi")


class Enter:
    def __init__(self, database: Database, instances: Instances, driver: Driver) -> None:
        self._database = database
        self._instances = instances
        self._driver = driver
        self._inside: Counter[str] = Counter()
        """How many are inside instances of an app, by its id."""

    @contextmanager
    def visit(self, app: App) -> Iterator[None]:
        """Somebody is inside the app meanwhile."""
        self._inside[app.id] += 1
        try:
            yield
        finally:
            self._inside[app.id] -= 1
            self._inside += Counter()  # forgets those at zero

    def is_inside(self, app: App) -> bool:
        """Whether somebody is."""
        return app.id in self._inside

    async def __call__(self, actor: Actor, app: App, words: Sequence[str], terminal: tuple[int, int] | None) -> OneOff:
        """`words` begin with an instance (`web.1`) or a process type that runs; otherwise they are all command, and the
        instance is the first of web. No command: a shell. Raises NotFound, or Conflict for one that sleeps."""
        row, command = await self._choose(app, words)
        if row.asleep:
            raise Conflict(f"{row.process_type}.{row.number} is asleep", hint=f"Wake it first with: ps:wake {app.name}")
        async with self._database.transaction() as tx:
            await events.record(
                tx,
                "app.entered",
                organization_id=app.organization_id,
                actor=actor.name,
                app=app.name,
                instance=f"{row.process_type}.{row.number}",
                command=command[0] if command else "a shell",
            )
        return await self._driver.exec(row.name, command or _SHELL, tty=terminal, stdin=True)

    async def _choose(self, app: App, words: Sequence[str]) -> tuple[InstanceRow, Sequence[str]]:
        live = await self._instances.of(app, "live")
        if not live:
            raise NotFound(f"nothing of {app.name} runs", hint=f"Look at: ps:report {app.name}")
        types = [row.process_type for row in live]
        if words and (_TITLE.fullmatch(words[0]) or words[0] in types):
            return await self._instances.find(app, words[0]), words[1:]
        return await self._instances.find(app, "web" if "web" in types else types[0]), words
