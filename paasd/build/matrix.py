"""Tries one revision with several versions of its language side by side; nothing of it is released or kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paasd.build.decision import Planner
from paasd.build.making import Maker
from paasd.build.queue import BuildQueue
from paasd.errors import InvalidInput, PaasdError
from paasd.models import App, Checkout, Secret
from paasd.progress import Progress

_MOST = 8


@dataclass(frozen=True)
class Trial:
    version: str
    outcome: str
    """`passed`, `built` when there are no tests, or why it failed."""
    seconds: float


class Matrix:
    def __init__(self, queue: BuildQueue, planner: Planner, maker: Maker) -> None:
        self._queue = queue
        self._planner = planner
        self._maker = maker

    async def run(
        self,
        app: App,
        checkout: Checkout,
        language: str,
        versions: Sequence[str],
        config: Mapping[str, Secret],
        progress: Progress,
    ) -> list[Trial]:
        """One trial a version, in the order given; as many at a time as the box builds. `language` may be empty.
        Raises InvalidInput."""
        if not 0 < len(versions) <= _MOST:
            raise InvalidInput(f"a matrix has 1 to {_MOST} versions", hint="For example: builds:matrix APP 3.11 3.13")
        trials = (self._try(app, checkout, language, version, config, progress) for version in versions)
        return list(await asyncio.gather(*trials))

    async def _try(
        self,
        app: App,
        checkout: Checkout,
        language: str,
        version: str,
        config: Mapping[str, Secret],
        progress: Progress,
    ) -> Trial:
        own = Progress(lambda line: progress.line(f"[{version}] {line}"))
        async with self._queue.slot(own):
            started = time.monotonic()
            try:
                decision = await self._planner.decide(app, checkout, language=language, version=version)
                prepared = await self._maker.prepare(app, decision, config, own)
                result = await self._maker.make(app, prepared, "", own)
                async with self._maker.held(result):
                    await self._maker.test(app, prepared, result.image, own)
            except PaasdError as error:
                own.warn(f"{error.detail}\n{error.hint}")
                return Trial(version, error.detail, round(time.monotonic() - started, 1))
        return Trial(version, "passed" if prepared.test else "built", round(time.monotonic() - started, 1))
