"""Events reach their subscribers at least once and in order, whatever fails. On a real SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from paasd import events
from paasd.events import Events, Subscriber, Subscriptions
from paasd.models import Event
from tests.unit.conftest import Store, until


class Inbox:
    """A subscriber that fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.failures = failures
        self.blocked: asyncio.Event | None = None
        self._more = asyncio.Event()

    async def __call__(self, batch: Sequence[Event]) -> None:
        self.batches.append([event.data["n"] for event in batch])
        self._more.set()
        if self.blocked is not None:
            await self.blocked.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")

    @property
    def numbers(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    async def until(self, *numbers: int) -> None:
        """The last events are these."""
        async with asyncio.timeout(10):
            while self.numbers[-len(numbers) :] != list(numbers):
                self._more.clear()
                await self._more.wait()


async def happen(store: Store, *numbers: int, type: str = "counted", app: str | None = None) -> None:
    async with store.database.transaction() as tx:
        for number in numbers:
            await events.record(tx, type, organization_id=store.admin.organization_id, actor="me", app=app, n=number)


class Delivery:
    """Subscriptions of one life of the daemon after another."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: Subscriptions | None = None

    async def start(self, *subscribers: Subscriber) -> None:
        """Ends what ran before, as a crash would: nothing is written down in the end."""
        await self.stop()
        self._running = Subscriptions(self._store.database, subscribers, first_pause=0.02)
        await self._running.start()

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.stop()


@pytest.fixture
async def delivery(store: Store) -> AsyncIterator[Delivery]:
    delivery = Delivery(store)
    yield delivery
    await delivery.stop()


async def saved(store: Store, name: str) -> int:
    row = await store.database.fetch_one("SELECT after_event FROM subscriptions WHERE subscriber = ?", name)
    assert row is not None
    return int(row["after_event"])


async def until_saved(store: Store, name: str, at: int) -> None:
    async def reached() -> bool:
        return await saved(store, name) == at

    await until(reached)


async def test_a_new_subscriber_gets_what_happens_from_now_on_at_once(store: Store, delivery: Delivery) -> None:
    inbox = Inbox()
    await happen(store, 1, 2)
    await delivery.start(Subscriber("inbox", inbox))
    await happen(store, 3)
    async with asyncio.timeout(2):
        await inbox.until(3)
    await happen(store, 4, 5)
    await inbox.until(4, 5)
    assert inbox.numbers == [3, 4, 5]


async def test_a_batch_that_failed_comes_again_before_later_events(store: Store, delivery: Delivery) -> None:
    inbox = Inbox(failures=2)
    await delivery.start(Subscriber("inbox", inbox))
    await happen(store, 1)
    await inbox.until(1, 1)
    await happen(store, 2)
    await inbox.until(2)
    assert inbox.numbers[:3] == [1, 1, 1]
    assert inbox.failures == 0


async def test_one_that_fails_does_not_hold_up_another(store: Store, delivery: Delivery) -> None:
    broken, good = Inbox(failures=10**6), Inbox()
    await delivery.start(Subscriber("broken", broken), Subscriber("good", good))
    await happen(store, 1)
    await good.until(1)
    await happen(store, 2)
    await good.until(2)


async def test_one_that_hangs_is_tried_again(store: Store, delivery: Delivery) -> None:
    inbox = Inbox()
    inbox.blocked = asyncio.Event()
    await delivery.start(Subscriber("inbox", inbox, timeout=0.05))
    await happen(store, 1)
    await inbox.until(1, 1)
    inbox.blocked.set()
    await until_saved(store, "inbox", 1)


async def test_a_restart_continues_behind_what_was_taken(store: Store, delivery: Delivery) -> None:
    inbox, silent = Inbox(), Inbox()
    await delivery.start(Subscriber("inbox", inbox))
    await happen(store, 1, 2)
    await inbox.until(1, 2)
    await until_saved(store, "inbox", 2)
    await delivery.stop()
    await happen(store, 3)
    await delivery.start(Subscriber("inbox", silent))
    await silent.until(3)
    assert silent.numbers == [3]


async def test_what_was_not_taken_whole_when_the_daemon_died_comes_again(store: Store, delivery: Delivery) -> None:
    dying, next_one = Inbox(), Inbox()
    dying.blocked = asyncio.Event()
    await delivery.start(Subscriber("inbox", dying))
    await happen(store, 1, 2)
    await dying.until(1, 2)
    await delivery.start(Subscriber("inbox", next_one))
    await next_one.until(1, 2)


async def test_only_wanted_types_and_the_rest_is_passed_over_for_good(store: Store, delivery: Delivery) -> None:
    inbox = Inbox()
    await delivery.start(Subscriber("inbox", inbox, frozenset({"counted"})))
    await happen(store, *range(150), type="other")
    await until_saved(store, "inbox", 100)
    await happen(store, 7)
    await inbox.until(7)
    await until_saved(store, "inbox", 151)
    assert inbox.numbers == [7]


async def test_long_queues_come_in_batches(store: Store, delivery: Delivery) -> None:
    inbox = Inbox()
    await delivery.start(Subscriber("inbox", inbox))
    await happen(store, *range(1050))
    await inbox.until(1049)
    assert inbox.numbers == list(range(1050))
    assert max(map(len, inbox.batches)) <= 100


async def test_events_are_kept_until_they_are_delivered_but_not_for_ever(store: Store, delivery: Delivery) -> None:
    stuck = Inbox(failures=10**6)
    await delivery.start(Subscriber("stuck", stuck))
    await happen(store, *range(30))
    assert await Events(store.database).prune(5) == 0
    await happen(store, *range(30, 100))
    assert await Events(store.database).prune(5) == 50
    await delivery.start()  # nobody subscribes under that name any more
    assert await Events(store.database).prune(5) == 45


async def test_following_goes_on_where_the_list_ends(store: Store) -> None:
    log, organization = Events(store.database), store.admin.organization_id
    await happen(store, *range(250), app="blog")
    async with asyncio.timeout(10), aclosing(log.follow(organization, app="blog", after=2, limit=7)) as following:
        found = [(await anext(following)).data["n"] for _ in range(248)]
        assert found == list(range(2, 250))
        coming = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0.05)
        await happen(store, 0, app="another")
        await happen(store, 250, app="blog")
        assert (await coming).data["n"] == 250


async def test_following_without_a_cursor_begins_with_the_newest(store: Store) -> None:
    log, organization = Events(store.database), store.admin.organization_id
    await happen(store, *range(10))
    async with asyncio.timeout(10), aclosing(log.follow(organization, limit=2)) as following:
        assert [(await anext(following)).data["n"] for _ in range(2)] == [8, 9]
        await happen(store, 10)
        assert (await anext(following)).data["n"] == 10


async def test_following_sees_no_other_organization(store: Store) -> None:
    await happen(store, 1)
    async with aclosing(Events(store.database).follow("another-organization", after=0)) as following:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(following)


async def test_a_follower_that_stands_still_costs_no_memory(store: Store) -> None:
    """What it has not read is in the table only: the pages it gets later were made after it read on."""
    log, organization = Events(store.database), store.admin.organization_id
    await happen(store, 1)
    async with asyncio.timeout(10), aclosing(log.follow(organization, after=0)) as following:
        await anext(following)
        await happen(store, *range(2, 500))
        await log.prune(3)
        assert (await anext(following)).data["n"] == 497
