"""A push with a fault at each call of the daemon over a border: some of them here, all of them by scripts/chaos."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.faults import BORDERS, Faulty, faulty

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def app() -> Iterator[Faulty]:
    with faulty() as made:
        yield made


@pytest.mark.parametrize(
    ("border", "number", "action"),
    [(border, number, action) for border in BORDERS for action in BORDERS[border] for number in (1,)]
    + [("engine", number, "error") for number in (4, 8, 10, 12, 14)]
    + [("engine", number, "lost") for number in (6, 9, 11, 13)]
    + [("engine", number, "kill") for number in (5, 10, 13)]
    + [("database", number, "error") for number in (6, 11, 16, 21, 25)]
    + [("database", number, "kill") for number in (9, 18, 24)]
    + [("disk", 2, "error"), ("disk", 2, "kill")],
)
def test_a_fault_at_a_call_leaves_nothing_half_done(app: Faulty, border: str, number: int, action: str) -> None:
    assert app.push(border, number, action), "the push makes at least this many calls"
