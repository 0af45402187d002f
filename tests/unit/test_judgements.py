"""When a canary is given up and a new release is left: the decisions, from counters alone."""

from __future__ import annotations

import pytest

from paasd.canary import Answers, between, trouble, without
from paasd.route.control import AppCounters
from paasd.route.traffic import Traffic
from paasd.watch import too_many_errors


def counters(requests: int, errors: int = 0, **latency: int) -> AppCounters:
    """`latency` in milliseconds, as `ms50=3`."""
    buckets = {int(name[2:]) / 1000: count for name, count in latency.items()}
    return AppCounters(requests, {"2xx": requests - errors, "5xx": errors}, 0, 0, 0.0, buckets)


@pytest.mark.parametrize(
    ("canary", "stable", "said"),
    [
        (Answers(19, 19), Answers(100, 0), None),
        (Answers(20, 4), Answers(100, 0), None),
        (Answers(20, 5), Answers(100, 0), "25% of its 20 requests"),
        (Answers(1000, 20), Answers(1000, 0), None),
        (Answers(1000, 21), Answers(1000, 0), "2% of its 1000"),
        # The old release fails as often.
        (Answers(100, 40), Answers(100, 30), None),
        (Answers(100, 70), Answers(100, 30), "30.0% of the old"),
        (Answers(100, 0, {0.05: 100}), Answers(100, 0, {0.05: 100}), None),
        (Answers(100, 0, {0.05: 90, 1.0: 10}), Answers(100, 0, {0.05: 100}), "95th percentile takes 1 s"),
        (Answers(49, 0, {1.0: 49}), Answers(100, 0, {0.05: 100}), None),
        # Twice as slow, but nobody notices.
        (Answers(100, 0, {0.05: 100}), Answers(100, 0, {0.01: 100}), None),
    ],
)
def test_a_canary_is_judged_against_the_old_release(canary: Answers, stable: Answers, said: str | None) -> None:
    found = trouble(canary, stable)
    assert (found is None) == (said is None) and (said or "") in (found or "")


def test_what_the_old_release_had_is_the_rest() -> None:
    all_ = between(counters(100, 5, ms50=95, ms100=5), counters(300, 25, ms50=250, ms100=50))
    canary = between(None, counters(50, 20, ms50=10, ms100=40))
    assert (all_.requests, all_.errors) == (200, 20)
    assert without(all_, canary) == Answers(150, 0, {0.05: 145, 0.1: 5})
    assert between(counters(100), counters(3)) == Answers(), "Nginx was started anew"


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (Traffic(19, 19), Traffic(), None),
        (Traffic(100, 9), Traffic(), None),
        (Traffic(100, 10), Traffic(), "10% of 100 requests were answered with 5xx (none seen before)"),
        (Traffic(1000, 50), Traffic(1000, 0), None),
        (Traffic(1000, 51), Traffic(1000, 0), "(0.0% before)"),
        (Traffic(100, 29), Traffic(100, 10), None),
        (Traffic(100, 31), Traffic(100, 10), "(10.0% before)"),
    ],
)
def test_a_new_release_is_left_for_far_more_errors(new: Traffic, old: Traffic, said: str | None) -> None:
    found = too_many_errors(new, old)
    assert (found is None) == (said is None) and (said or "") in (found or "")


def test_what_a_canary_or_nobody_answered_is_not_the_live_release() -> None:
    seen = {"blog": counters(100, 60), "blog~": counters(50, 40), "blog!": counters(20, 20), "blogger": counters(7, 7)}
    assert Traffic.of("blog", seen) == Traffic(30, 0)
    assert Traffic.of("other", seen) == Traffic()


def test_counters_that_began_anew_tell_nothing() -> None:
    assert Traffic(5, 1).since(Traffic(100, 1)) == Traffic()
    assert Traffic(5, 1).since(None) == Traffic()
    assert Traffic(105, 3).since(Traffic(100, 1)) == Traffic(5, 2)
