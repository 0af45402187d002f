"""Fixtures that all kinds of tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.box import Box


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """One running paasd for all tests that leave it as they found it (apps have names of their own)."""
    box = Box()
    try:
        yield box.start()
    finally:
        box.close()


@pytest.fixture
def new_box() -> Iterator[Callable[..., Box]]:
    """Makes boxes of the test's own, not yet started, and removes them."""
    boxes: list[Box] = []

    def make(settings: str = "", **options: str) -> Box:
        boxes.append(Box(settings, **options))
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()
