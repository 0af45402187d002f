"""When an app sleeps: what was set, and how long it has been quiet."""

from __future__ import annotations

import pytest

from paasd.edge_values import Route
from paasd.errors import InvalidInput
from paasd.route.control import parse_route, route_line
from paasd.sleep_rules import Quiet, SleepRule, SleepRules, pause, quiet
from tests.unit.conftest import Store


@pytest.mark.parametrize(
    ("before", "requests", "busy", "after"),
    [
        (None, 7, False, Quiet(100.0, 7)),
        (Quiet(40.0, 7), 7, False, Quiet(40.0, 7)),
        (Quiet(40.0, 7), 8, False, Quiet(100.0, 8)),
        (Quiet(40.0, 7), 7, True, Quiet(100.0, 7)),
        (Quiet(40.0, 7), 0, False, Quiet(100.0, 0)),
    ],
)
def test_time_begins_anew_with_whatever_is_asked(before: Quiet | None, requests: int, busy: bool, after: Quiet) -> None:
    assert quiet(before, requests, busy, 100.0) == after


def test_looks_are_as_frequent_as_the_shortest_time_needs() -> None:
    assert pause({}) == pause({"a": SleepRule(1800)}) == 15
    assert pause({"a": SleepRule(1800), "b": SleepRule(20)}) == 5
    assert pause({"a": SleepRule(0.1)}) == 0.25


async def test_settings_make_a_rule_together(store: Store) -> None:
    app = await store.apps.create(store.admin, "blog")
    rules = SleepRules(store.database)
    assert await rules.of(app) is None and await rules.all() == {} and await rules.hold(app) == 30
    with pytest.raises(InvalidInput):
        await rules.change(store.admin, app, {"hold": "10s"})
    assert await rules.change(store.admin, app, {"after": "30m"}) == SleepRule(1800)
    await rules.change(store.admin, app, {"hold": "0", "workers": "YES"})
    assert await rules.all() == {app.id: SleepRule(1800, 0, True)}
    with pytest.raises(InvalidInput):
        await rules.change(store.admin, app, {"after": None})
    assert await rules.change(store.admin, app, {"hold": None}) == SleepRule(1800, 30, True)
    await rules.unset(store.admin, app)
    assert await rules.of(app) is None and await rules.all() == {}


def test_the_route_of_a_sleeping_app_is_read_as_it_was_written() -> None:
    routes = [Route("blog", (), 3, hold=0.5), Route("shop", (), 12, hold=30.0), Route("wiki")]
    assert [route_line(route) for route in routes] == ["3 hold=0.5", "12 hold=30", "0"]
    assert [parse_route(route.app, route_line(route)) for route in routes] == routes
