"""What is told of a failure hook's address: at Slack and Discord the path is the token."""

from __future__ import annotations

from typing import Any, cast

import pytest

from paasd.checks import Check
from paasd.config import RunConfig
from paasd.models import App
from paasd.run.failure_hooks import FailureHooks
from paasd.run.instances import InstanceRow


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/services/T0KEN?a=T0KEN", "POST http://127.0.0.1:1 failed: Cannot connect"),
        (
            "http://u:T0KEN@10.1.2.3:81/T0KEN",
            "POST http://10.1.2.3:81 was not sent: 10.1.2.3 is at 10.1.2.3, which is no",
        ),
        ("http://127.0.0.1:99999/T0KEN", "POST http://127.0.0.1:99999 was not sent: the address is not right"),
        ("http://127.0.0.1:1?T0KEN", "POST http://127.0.0.1:1 failed: "),
    ],
)
async def test_tokens_in_addresses_are_not_told(url: str, said: str) -> None:
    hooks = FailureHooks(cast(Any, None), RunConfig(hooks_to="127.0.0.0/8"))
    app, row = cast(App, _Named()), cast(InstanceRow, _Named())
    (told,) = await hooks(app, row, Check(on_failure_url=url), "GET / answered 500")
    assert said in told and "T0KEN" not in told, told


class _Named:
    id, name, process_type, number = "id", "blog", "web", 1
