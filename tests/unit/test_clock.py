"""The clock for deadlines."""

from __future__ import annotations

import time

from paasd.clock import SteadyClock


def test_it_is_the_systems_clock_until_that_is_set() -> None:
    assert abs(SteadyClock()() - time.time()) < 1


def test_it_never_goes_back_before_what_was_written_down() -> None:
    clock = SteadyClock()
    later = clock() + 1000
    clock.not_before(later)
    clock.not_before(later - 500)
    assert later <= clock() < later + 1
