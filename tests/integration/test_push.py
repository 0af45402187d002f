"""The main job: real git, real SSH, real engine, real Nginx."""

from __future__ import annotations

import pytest

from tests.box import Box

pytestmark = pytest.mark.engine


def test_pushed_python_example_goes_live_and_the_next_push_replaces_it(box: Box) -> None:
    repository = box.repository(example="python")
    first = box.push(repository, "first-push")
    assert first.status == 0, first
    assert "=====> first-push v1 is live:" in first.all
    assert "Hello from paasd" in box.get("first-push").text
    app = (repository.path / "app.py").read_text()
    repository.commit({"app.py": app.replace("Hello", "Bonjour")})
    assert box.push(repository, "first-push").status == 0
    assert "Bonjour from paasd" in box.get("first-push").text
    assert [r["version"] for r in box.json("releases", "first-push")] == ["v2", "v1"]
