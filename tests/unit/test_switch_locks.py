"""The locks of apps whose release changes."""

from __future__ import annotations

import asyncio
import gc

from paasd.models import App
from paasd.switch_locks import SwitchLocks
from tests.unit.conftest import Store


async def test_a_lock_is_held_by_one_at_a_time_and_gone_after_the_last(store: Store) -> None:
    locks = SwitchLocks()
    app = await store.apps.create(store.admin, "blog")
    other = await store.apps.create(store.admin, "shop")
    inside, most = 0, 0

    async def change(app: App) -> None:
        nonlocal inside, most
        async with locks.of(app):
            inside += app.name == "blog"
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= app.name == "blog"

    async with locks.of(app):
        waiting = [asyncio.create_task(change(app)) for _ in range(10)]
        await asyncio.sleep(0)
        assert locks.is_held(app) and not locks.is_held(other)
        async with locks.if_free(app) as free:
            assert not free
        async with locks.if_free(other) as free:
            assert free and locks.is_held(other)
        await change(other)
        assert len(locks) == 1
    waiting.append(asyncio.create_task(change(app)))
    await asyncio.gather(*waiting)
    assert most == 1
    waiting.clear()
    assert len(locks) == 0 and not locks.is_held(app)


async def test_a_cancelled_holder_leaves_nothing(store: Store) -> None:
    locks = SwitchLocks()
    app = await store.apps.create(store.admin, "blog")

    async def hold() -> None:
        async with locks.of(app):
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(hold()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    del tasks, task
    await asyncio.sleep(0)
    gc.collect()  # what was raised refers to the frames that held the lock
    assert len(locks) == 0
