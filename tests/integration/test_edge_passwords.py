"""Passwords of the edge, through the whole of paasd: they are not repeated anywhere."""

from __future__ import annotations

import pytest

from tests.box import Box

pytestmark = pytest.mark.engine
PASSWORD = "correct-horse-battery"


def test_passwords_are_never_shown(box: Box) -> None:
    assert box.ssh("apps:create", "closed").status == 0
    set_ = box.ssh("edge:set", "closed", "auth.basic", f"alice:{PASSWORD}", f"bob:{PASSWORD}2")
    assert set_.status == 0 and "alice bob" in set_.all, set_
    report = box.ssh("edge:report", "closed")
    assert "alice bob" in report.out
    assert box.json("edge:report", "closed")["auth.basic"]["value"] == "alice bob"
    refused = box.ssh("edge:set", "closed", "auth.basic", f"alice:{PASSWORD}", "bob:short")
    assert refused.status != 0 and "auth.basic must be" in refused.all
    shown = [set_, report, refused, box.ssh("events", "closed"), box.ssh("nginx:show-config", "closed")]
    for each in shown:
        assert PASSWORD not in each.all and "pbkdf2" not in each.all, each
    assert box.ssh("apps:clone", "closed", "copied").status == 0
    assert box.json("edge:report", "copied")["auth.basic"]["value"] == "alice bob"
    kept = [path for path in box.data.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert kept == [], "it is written nowhere"
    for app in ("closed", "copied"):
        assert box.ssh("apps:destroy", app, "--force").status == 0
