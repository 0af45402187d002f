from __future__ import annotations

import asyncio
import contextlib

from paasd.build.queue import BuildQueue
from paasd.progress import Progress


async def test_turns_come_in_order_and_positions_are_told() -> None:
    queue, order, lines = BuildQueue(1), [], []  # type: ignore[var-annotated]
    gate = asyncio.Event()

    async def build(name: str) -> None:
        async with queue.slot(Progress(lambda line: lines.append(f"{name} {line.strip()}"))):
            order.append(name)
            await gate.wait()

    tasks = []
    for name in ("a", "b", "c"):
        tasks.append(asyncio.create_task(build(name)))
        await asyncio.sleep(0)
    assert order == ["a"]
    assert any(line.startswith("b ") and "position 1" in line for line in lines)
    assert any(line.startswith("c ") and "position 2" in line for line in lines)
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]
    assert "c position 1" in lines


async def test_a_cancelled_waiter_gives_its_place_up() -> None:
    queue = BuildQueue(1)
    release, started = asyncio.Event(), []  # type: ignore[var-annotated]

    async def build(name: str) -> None:
        async with queue.slot(Progress()):
            started.append(name)
            await release.wait()

    tasks = [asyncio.create_task(build(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[1]
    release.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert started == ["a", "c"]


async def test_a_turn_granted_to_a_waiter_that_is_cancelled_at_that_moment_is_not_lost() -> None:
    queue = BuildQueue(1)
    async with queue.slot(Progress()):
        waiter = asyncio.create_task(_enter(queue))
        await asyncio.sleep(0)
    waiter.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiter
    async with asyncio.timeout(1), queue.slot(Progress()):
        pass


async def _enter(queue: BuildQueue) -> None:
    async with queue.slot(Progress()):
        await asyncio.sleep(0)
