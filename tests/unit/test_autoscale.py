"""How many instances a load asks for, and when that is acted on."""

from __future__ import annotations

import pytest

from paasd.autoscale import Reading, load_between
from paasd.autoscale_rules import Load, Recommendation, Rule, decide, recommend
from paasd.drivers.base import Usage
from paasd.route.control import AppCounters


@pytest.mark.parametrize(
    ("rule", "current", "load", "count"),
    [
        (Rule(10, cpu=70), 2, Load(cpu=140), 4),
        (Rule(10, cpu=70), 2, Load(cpu=71), 2),
        (Rule(10, cpu=70), 2, Load(cpu=76), 2),
        (Rule(10, cpu=70), 2, Load(cpu=78), 3),
        (Rule(10, cpu=70), 4, Load(cpu=35), 2),
        (Rule(10, cpu=70), 4, Load(cpu=0), 1),
        (Rule(10, least=3, cpu=70), 4, Load(cpu=0), 3),
        (Rule(5, cpu=70), 4, Load(cpu=140), 5),
        (Rule(50, cpu=10), 2, Load(cpu=100), 6),
        (Rule(50, cpu=10), 10, Load(cpu=100), 20),
        (Rule(10, cpu=70), 3, Load(), 3),
        (Rule(10, memory=80), 2, Load(memory=100), 3),
        (Rule(10, cpu=50, memory=80), 2, Load(cpu=10, memory=100), 3),
        (Rule(10, rps=50), 1, Load(rps=140), 3),
        (Rule(10, rps=50), 3, Load(rps=150), 3),
        (Rule(10, rps=50), 3, Load(rps=0), 1),
        (Rule(10, p95=0.5), 2, Load(p95=1.0), 4),
        (Rule(10, p95=0.5), 2, Load(p95=9.0), 4),
        (Rule(10, p95=0.5), 4, Load(p95=0.01), 3),
        (Rule(10, p95=0.5), 4, Load(p95=None), 4),
        (Rule(10, p95=0.5, cpu=70), 4, Load(p95=0.0, cpu=80), 5),
        (Rule(10, least=2, cpu=70), 1, Load(), 2),
    ],
)
def test_the_count_that_a_load_asks_for(rule: Rule, current: int, load: Load, count: int) -> None:
    found = recommend(rule, current, load)
    assert found.count == count and found.reason


def counts(*pairs: tuple[float, int]) -> list[tuple[float, Recommendation]]:
    return [(at, Recommendation(count, f"reason {count}")) for at, count in pairs]


@pytest.mark.parametrize(
    ("current", "seen", "wanted"),
    [
        (2, counts((0, 2), (300, 4)), 4),
        (2, counts((0, 2), (300, 2)), None),
        (4, counts((210, 1), (290, 1), (300, 1)), None),
        (4, counts((190, 4), (210, 1), (300, 1)), 1),
        (4, counts((190, 4), (210, 3), (250, 2), (300, 1)), 3),
        (4, counts((190, 4), (250, 4), (300, 1)), None),
        (4, counts((190, 4), (250, 9), (300, 1)), None),
        (12, counts((200, 12), (300, 10)), 10),
        (1, counts((290, 1), (300, 2)), 2),
    ],
)
def test_up_at_once_and_down_after_the_cool_down(
    current: int, seen: list[tuple[float, Recommendation]], wanted: int | None
) -> None:
    found = decide(Rule(10, cpu=70, cooldown=100), current, seen, 300.0)
    assert (found.count if found else None) == wanted


def usage(seconds: float, memory: int = 64) -> Usage:
    return Usage(seconds, 0.5, memory, 128)


def counters(requests: int, **latency: int) -> AppCounters:
    buckets = {0.01: latency.get("quick", 0), 0.1: latency.get("slow", 0), float("inf"): latency.get("endless", 0)}
    return AppCounters(requests, {"5xx": 0}, 0, 0, 0.0, buckets)


def test_load_is_what_happened_between_two_readings() -> None:
    before = Reading(100.0, {"a": usage(1.0), "gone": usage(9.0), "anew": usage(5.0)}, counters(10, quick=10))
    after = Reading(110.0, {"a": usage(3.5), "new": usage(4.0), "anew": usage(0.1)}, counters(210, quick=110, slow=110))
    load = load_between(before, after)
    assert (load.cpu, load.memory, load.rps) == (50.0, 50.0, 20.0)
    assert load.p95 is not None and 0.08 < load.p95 < 0.1
    assert load_between(after, after).p95 == 0.0
    few = Reading(111.0, {}, counters(212, quick=112, slow=110))
    assert load_between(after, few) == Load(None, None, 2.0, None)
    restarted = Reading(112.0, {}, counters(1, quick=1))
    assert load_between(few, restarted).rps == 0.0
