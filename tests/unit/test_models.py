from __future__ import annotations

import pytest

from paasd import names
from paasd.errors import InvalidInput
from paasd.models import Secret


@pytest.mark.parametrize("name", ["a", "blog", "shop-api", "a1", "x" * 40])
def test_chosen_names_that_are_fine(name: str) -> None:
    assert names.chosen_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "1a", "-a", "a-", "a--b", "a_b", "a.b", "a/b", "../x", "a\n", "a\0", "é", "x" * 41, "x" * 65536, "a b"],
)
def test_chosen_names_outside_the_grammar_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        names.chosen_name(name)
    assert "lowercase letters" in caught.value.hint
    assert len(caught.value.detail) < 120
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize("key", ["", "1A", "A-B", "A B", "A=", "$(id)", "A\n", "x" * 129])
def test_config_keys_outside_the_grammar_are_refused(key: str) -> None:
    with pytest.raises(InvalidInput):
        names.config_key(key)


@pytest.mark.parametrize("name", ["main", "release/1.2", "feature_x", "v1.0-rc"])
def test_branch_names_that_are_fine(name: str) -> None:
    assert names.branch_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-x", "--upload-pack=x", "a..b", "a b", "a\tb", "a~1", "a^", "a:b", "a//b", "a/", "a.lock", "a@{b", "x" * 201],
)
def test_branch_names_git_would_not_take_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        names.branch_name(name)


def test_a_secret_masks_itself_wherever_it_is_printed() -> None:
    secret = Secret("s3cr3t")
    assert "s3cr3t" not in f"{secret} {secret!r} {[secret]} {{'a': {secret!s}}}"
    assert secret.reveal() == "s3cr3t"
    assert secret == Secret("s3cr3t")
    assert secret != "s3cr3t"
