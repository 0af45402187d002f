"""What reaches the terminal: nothing that an app, a repository or another user wrote can steer it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from paasd.cli.console import Console
from paasd.progress import with_colours_only

EVIL = "a\x1b]0;title\x07b\x1b[2J\x1b[1;1Hc\x1b[31md\x9b2Je\rf\x08g\x7f\u0085"
CLEAN = "abcd2Jefg"


def printed(use: Callable[[Console], Any]) -> str:
    """On both outputs together."""
    read, write = os.pipe()
    try:
        use(Console(0, write, write))
    finally:
        os.close(write)
    with open(read, "rb") as file:
        return file.read().decode()


@pytest.mark.parametrize(
    ("use", "wanted"),
    [
        (lambda c: c.print(EVIL), f"{CLEAN}\n"),
        (lambda c: c.error(f"{EVIL}\nnext"), " !     "),
        (lambda c: c.heading(EVIL), f"=====> {CLEAN}\n"),
        (lambda c: c.facts({"Process web": EVIL}), CLEAN),
        (lambda c: c.table(("REASON",), [(EVIL,)]), f"REASON\n{CLEAN}\n"),
        (lambda c: c.lines([EVIL.encode()[:3], EVIL.encode()[3:], b"\nrest"]), f"{CLEAN}\nrest\n"),
        (lambda c: c.lines(["ü".encode()[:1], "ü\n".encode()[1:]]), "ü\n"),
    ],
)
def test_no_output_holds_controls(use: Callable[[Console], Any], wanted: str) -> None:
    text = printed(use)
    assert wanted in text
    assert all(c in "\n\t" or c.isprintable() for c in text), ascii(text)


def test_a_cell_cannot_forge_a_line() -> None:
    text = printed(lambda c: (c.table(("A", "B"), [("x\n-----> y", "z")]), c.facts({"K": "v\n=====> w"})))
    assert text.splitlines() == ["A           B", "x -----> y  z", "       K:  v =====> w"]


def test_json_stays_exact_and_harmless() -> None:
    value = {"text": EVIL + "\u2028ü\udce9", "list": ["\x00"]}
    for use in (lambda c: c.json(value), lambda c: c.json_line(value)):
        text = printed(use)
        assert json.loads(text) == value
        assert all(c == "\n" or c.isprintable() or c == "\u2028" for c in text), ascii(text)


def test_log_lines_keep_colours_and_end_them() -> None:
    assert with_colours_only("plain") == "plain"
    assert with_colours_only("\x1b[1;31mred\x1b[2Jx\x1b[H\x1b]0;t\x07") == "\x1b[1;31mredx\x1b[0m"
    assert with_colours_only("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
    assert with_colours_only("a\x1b[3") == "a3"
    # What is cut out must not join to something new.
    joined = with_colours_only("\x1b\x1b[0m[2J \x1b[0m")
    assert "\x1b[2J" not in joined


def test_the_value_of_a_config_var_is_exact() -> None:
    assert printed(lambda c: c.exact(EVIL)) == f"{EVIL}\n"
