"""What the app of a branch is called."""

from __future__ import annotations

import pytest

from paasd.errors import InvalidInput
from paasd.names import app_name, chosen_name
from paasd.previews import preview_name


@pytest.mark.parametrize(
    ("branch", "name"),
    [
        ("feature-x", "feature-x--blog"),
        ("Feature/X_1", "feature-x-1--blog"),
        ("1234-fix", "b1234-fix--blog"),
        ("--", "b--blog"),
        ("été", "t--blog"),
        ("a" * 21, "a" * 21 + "--blog"),
    ],
)
def test_names_follow_the_branch(branch: str, name: str) -> None:
    assert preview_name("blog", branch) == name


@pytest.mark.parametrize("branch", ["a" * 22, "feature/a-very-long-name-of-a-branch", "ü" * 50, "0" * 200, "-" * 40])
@pytest.mark.parametrize("app", ["a", "b" * 40])
@pytest.mark.parametrize("distinct", [False, True])
def test_every_name_is_a_dns_label_and_an_app_s(branch: str, app: str, distinct: bool) -> None:
    name = preview_name(app, branch, distinct=distinct)
    assert len(name) <= 63 and app_name(name) == name
    with pytest.raises(InvalidInput):
        chosen_name(name)


def test_branches_that_look_alike_are_told_apart() -> None:
    names = {preview_name("blog", branch, distinct=True) for branch in ("feature/x", "feature-x", "feature_x")}
    assert len(names) == 3
