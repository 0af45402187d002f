"""What is set for process types, over the box's defaults and under its maximum."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from paasd.errors import InvalidInput
from paasd.models import Limits
from paasd.resources import KINDS, AppResources

MIB = 1024**2
DEFAULT, MOST = Limits(512 * MIB, 1.0, 256), Limits(2048 * MIB, 2.0)


def of(values: Mapping[str, str]) -> AppResources:
    return AppResources(values, DEFAULT, MOST)


@pytest.mark.parametrize(
    ("text", "kept"), [("1g", "1g"), ("1.5 GB", "1536m"), ("512", "512m"), ("1024m", "1g"), ("9000k", "9000k")]
)
def test_sizes_are_kept_in_their_largest_whole_unit(text: str, kept: str) -> None:
    assert KINDS["memory"].check(text) == kept
    assert KINDS["memory"].check(kept) == kept


@pytest.mark.parametrize("text", ["", "0", "-1", "1x", "7m", "much", "1e9", "٣g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        KINDS["memory"].check(text)


@pytest.mark.parametrize("text", ["0", "-1", "0.001", "two", "inf", "nan"])
def test_what_is_no_number_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number of cores"):
        KINDS["cpu"].check(text)


def test_a_process_type_beats_the_app_which_beats_the_box() -> None:
    found = of({"memory": "256m", "worker.memory": "1g", "worker.cpu": "0.5", "pids": "64"})
    assert found.limits("web") == Limits(256 * MIB, 1.0, 64)
    assert found.limits("worker") == Limits(1024 * MIB, 0.5, 64)
    assert [found.origin(kind, "worker") for kind in ("cpu", "pids", "reserve-memory")] == [
        "process type",
        "app",
        "box",
    ]


def test_a_maximum_that_was_lowered_holds_for_what_was_set_before() -> None:
    assert of({"memory": "1t", "cpu": "64", "reserve-memory": "1t"}).limits("web") == Limits(
        2048 * MIB, 2.0, 256, 2048 * MIB
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"memory": "3g"}, r"memory 3g is more than .* \(2 GiB\)"),
        ({"worker.cpu": "2.5"}, r"worker.cpu 2.5 is more than .* \(2 cores\)"),
        ({"reserve-memory": "1g"}, "an instance would reserve 1 GiB of at most 512 MiB"),
        ({"reserve-memory": "400m", "web.memory": "300m"}, "web would reserve 400 MiB of at most 300 MiB"),
    ],
)
def test_too_much_and_contradictions_are_refused(values: Mapping[str, str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        of(values).check()


def test_what_fits_is_taken() -> None:
    of({"memory": "2g", "web.memory": "600m", "reserve-memory": "600m", "cpu": "2"}).check()
