"""When certificates are renewed, retried and told of, and which names go together."""

from __future__ import annotations

import pytest

from paasd.route.acme.rules import DAY, Held, Trouble, alarm_at, plan, renew_at, retry_after, wildcards


@pytest.mark.parametrize(("days", "renewed"), [(90, 60), (64, 64 * 2 / 3), (45, 30), (10, 20 / 3), (9.9, 4.95), (6, 3)])
def test_a_third_of_the_lifetime_or_half_of_a_short_one(days: float, renewed: float) -> None:
    assert renew_at(1000, 1000 + days * DAY) == pytest.approx(1000 + renewed * DAY)
    assert alarm_at(1000, 1000 + days * DAY) == pytest.approx(1000 + days * DAY * 5 / 6)


def test_the_authoritys_wish_counts_but_never_too_late() -> None:
    assert renew_at(0, 90 * DAY, 12 * DAY) == 12 * DAY
    assert renew_at(0, 90 * DAY, 70 * DAY) == 70 * DAY
    assert renew_at(0, 90 * DAY, 400 * DAY) == 75 * DAY
    assert renew_at(0, 90 * DAY, -5.0) == -5.0, "now"


def test_retries_grow_and_heed_the_authority() -> None:
    assert [retry_after(failures) for failures in (1, 2, 3, 4, 9)] == [60, 600, 6000, DAY, DAY]
    assert retry_after(1, 7200) == 7200 and retry_after(3, 10) == 6000


def test_no_more_than_five_attempts_in_an_hour() -> None:
    at, attempts = 0.0, 0
    while at < 3600:
        attempts += 1
        at += retry_after(attempts)
    assert attempts <= 5


def test_one_certificate_for_all_names() -> None:
    names = ["a.test", "b.test"]
    assert plan(names, [], {}, 0).orders == (("a.test", "b.test"),)
    both = Held(("a.test", "b.test"), 100)
    assert plan(names, [both], {}, 99) == plan(names, [both], {}, 0)
    assert plan(names, [both], {}, 99).orders == () and plan(names, [both], {}, 99).next_at == 100
    assert plan(names, [both], {}, 100).orders == (("a.test", "b.test"),)
    assert plan([*names, "c.test"], [both], {}, 0).orders == (("a.test", "b.test", "c.test"),)
    assert plan(["a.test"], [both], {}, 0).orders == (), "a name less needs no new one"
    assert plan(["x.b.test"], [Held(("*.b.test",), 100)], {}, 0).orders == ()
    assert plan([], [both], {}, 0).next_at is None


def test_who_waits_holds_up_nobody() -> None:
    names = ["a.test", "bad.test"]
    troubles = {"bad.test": Trouble(2, 600)}
    assert plan(names, [], troubles, 0).orders == (("a.test",),)
    assert plan(names, [], troubles, 0).next_at == 600
    held = [Held(("a.test",), 1000)]
    assert plan(names, held, troubles, 599).orders == () and plan(names, held, troubles, 599).next_at == 600
    assert plan(names, held, troubles, 600).orders == (("a.test", "bad.test"),)
    assert plan(["bad.test"], [], troubles, 0).orders == ()


def test_no_order_names_a_wildcard_and_what_it_stands_for() -> None:
    names = ["w.test", "*.w.test", "a.w.test", "a.b.w.test"]
    assert plan(names, [], {}, 0).orders == (("w.test", "*.w.test", "a.b.w.test"),)
    failed = {"*.w.test": Trouble(1, 60)}
    assert plan(names, [], failed, 0).orders == (("w.test", "a.w.test", "a.b.w.test"),), "not without its wildcard"
    held = [Held(("w.test", "*.w.test", "a.b.w.test"), 100)]
    assert plan(names, held, {}, 0).orders == ()


def test_many_names_are_split_the_same_way_each_time() -> None:
    names = [f"n{number}.test" for number in range(5)]
    orders = plan(names, [], {}, 0, most=2).orders
    assert orders == (("n0.test", "n1.test"), ("n2.test", "n3.test"), ("n4.test",))
    held = [Held(order, 100) for order in orders]
    assert plan([*names, "n5.test"], held, {}, 0, most=2).orders == (("n4.test", "n5.test"),)


def test_wildcards_below_more_than_a_top_level_domain() -> None:
    assert wildcards(["a.b.test", "c.b.test", "b.test", "*.d.test"]) == ["*.b.test", "b.test", "*.d.test"]


def test_a_clock_that_was_wrong_keeps_nobody_waiting_for_years() -> None:
    assert plan(["a.test"], [], {"a.test": Trouble(1, 700 * DAY)}, 0).orders == (("a.test",),)
    assert retry_after(1, 10**9) == 7 * DAY
