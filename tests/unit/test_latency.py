"""Quantiles and Apdex of the edge's histograms."""

from __future__ import annotations

from math import inf

import pytest

from paasd.route.latency import apdex, quantile, within

EVEN = {0.1: 50, 0.5: 40, 2.5: 8, inf: 2}


@pytest.mark.parametrize(
    ("share", "seconds"),
    [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.7, 0.3), (0.9, 0.5), (0.98, 2.5), (0.99, 2.5), (1.0, 2.5)],
)
def test_quantiles(share: float, seconds: float) -> None:
    assert quantile(EVEN, share) == pytest.approx(seconds)


def test_nothing_asked_has_no_quantile_and_no_apdex() -> None:
    for empty in ({}, {0.1: 0, inf: 0}):
        assert quantile(empty, 0.5) is None and apdex(empty, 0) is None


def test_one_slow_request_lies_beyond_the_last_bound() -> None:
    assert quantile({0.1: 0, 30.0: 0, inf: 1}, 0.5) == 30.0


@pytest.mark.parametrize(
    ("seconds", "requests"), [(0.0, 0), (0.05, 25), (0.1, 50), (0.3, 70), (2.0, 96), (2.5, 98), (99.0, 98)]
)
def test_requests_within_a_time(seconds: float, requests: float) -> None:
    assert within(EVEN, seconds) == pytest.approx(requests)


def test_apdex() -> None:
    assert apdex({0.5: 10, inf: 0}, 0) == 1.0
    assert apdex({0.5: 0, inf: 10}, 0) == 0.0
    assert apdex(EVEN, 0) == pytest.approx((90 + 6 / 2) / 100)
    assert apdex(EVEN, 30) == pytest.approx((60 + 6 / 2) / 100)
    assert apdex({0.5: 10, inf: 0}, 99) == 0.0
